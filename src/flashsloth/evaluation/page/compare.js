"use strict";
// Filters the questions by outcome and text, and moves among those that are shown. Without it, all are there to read.
(() => {
  const rows = [...document.querySelectorAll(".row")];
  const cards = [...document.querySelectorAll(".card")];
  const buttons = [...document.querySelectorAll("#controls button")];
  const search = document.getElementById("search");
  const texts = new Map(rows.map((row) => {
    const name = row.closest(".card").querySelector("h3").textContent;
    return [row, `${row.textContent} ${name}`.toLowerCase().replace(/\s+/g, " ")];
  }));
  let outcome = "all";

  function show() {
    const wanted = search.value.trim().toLowerCase().replace(/\s+/g, " ");
    let shown = 0;
    for (const row of rows) {
      row.hidden = !((outcome === "all" || row.dataset.outcome === outcome) && texts.get(row).includes(wanted));
      shown += !row.hidden;
    }
    for (const card of cards) card.hidden = !card.querySelector(".row:not([hidden])");
    document.getElementById("status").textContent = `${shown} of ${rows.length} shown`;
    document.getElementById("nothing").hidden = shown > 0;
  }

  function move(step) {
    const visible = rows.filter((row) => !row.hidden);
    const here = visible.indexOf(document.activeElement.closest(".row"));
    const next = visible[here < 0 ? (step > 0 ? 0 : visible.length - 1) : here + step];
    if (!next) return;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "center" });
  }

  for (const button of buttons) {
    button.addEventListener("click", () => {
      outcome = button.dataset.outcome;
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      show();
    });
  }
  search.addEventListener("input", show);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === search) {
      if (event.key === "Escape") { search.value = ""; show(); search.blur(); }
      return;
    }
    if (event.key === "j") move(1);
    else if (event.key === "k") move(-1);
    else if (event.key === "/") { event.preventDefault(); search.focus(); }
  });
  document.getElementById("controls").hidden = document.getElementById("keys").hidden = false;
  show();
})();
