// The picture that is talked about, all others in a strip, and where the model looked over it.
import { $, element, percent, thumb } from "./dom.js";
import { draw, inside, most, patch, patchAt, sum } from "./attention.js";
import { sizeText } from "./pictures.js";

const SHARP = 320, CHIP = 96; // pixels of a map's longer side, and of a small one's
const TITLES = { none: "Picture", mean: "Mean", sap: "SAP" };
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

const shown = { picture: null, turn: null, map: "none", at: null };

/** The attention in the picture that is shown, of the turn that is shown. */
const found = () => shown.turn?.attention?.[shown.turn.shown.indexOf(shown.picture)] ?? null;
const limitOf = (name) => most(name === "sap" ? [found()] : shown.turn.attention, name);
const ratio = () => Number($("frame").style.getPropertyValue("--ratio"));
const fitted = (side) => [side * Math.min(1, ratio()), side / Math.max(1, ratio())].map((pixels) => Math.max(1, Math.round(pixels)));

export const pictureOnStage = () => shown.picture;

/** Show one of the pictures, and the attention of one turn, where it saw that picture. */
export function showOnStage(pictures, picture = shown.picture, turn = shown.turn) {
	shown.picture = pictures.includes(picture) ? picture : pictures.at(-1) ?? null;
	shown.turn = turn;
	$("drop").hidden = Boolean(shown.picture);
	$("look").hidden = !shown.picture;
	$("strip").hidden = pictures.length < 2;
	$("strip").replaceChildren(...pictures.map((one) => {
		const item = thumb(one, () => showOnStage(pictures, one));
		item.firstChild.ariaPressed = String(one === shown.picture);
		return item;
	}));
	if (shown.picture) showPicture(shown.picture);
	showMaps();
}

export function showAttention(pictures, turn) {
	if (shown.map === "none") shown.map = "mean";
	showOnStage(pictures, turn.shown.includes(shown.picture) ? shown.picture : turn.shown.find((one) => !one.removed), turn);
	$("look").scrollIntoView({ block: "nearest" });
}

function showPicture({ name, url, width, height, sent }) {
	const box = found()?.box ?? [0, 0, 3, 2];
	$("frame").style.setProperty("--ratio", width ? width / height : (box[2] - box[0]) / (box[3] - box[1]));
	$("picture").hidden = !width;
	$("unseen").hidden = Boolean(width);
	if ($("picture").src !== url) Object.assign($("picture"), { src: url, alt: name });
	$("caption").textContent = [name, sizeText({ width, height }), sent && `sent as ${sizeText(sent)}`].filter(Boolean).join(" · ");
}

function showMaps() {
	const seen = found();
	$("looked").hidden = !seen;
	if (seen) {
		const names = ["none", "mean", ...Array.from({ length: seen.queries }, (_, query) => `${query + 1}`), "sap"];
		const usable = names.filter((name) => name === "none" || name in seen.maps);
		if (!usable.includes(shown.map)) shown.map = "none";
		$("looked-turn").textContent = `for “${shown.turn.question}”`;
		$("maps").replaceChildren(...usable.map((name) => choiceOf(seen, name)));
	}
	showMap();
}

function choiceOf(seen, name) {
	const isPicture = name === "none" && shown.picture.width, title = TITLES[name] ?? name;
	const face = isPicture ? element("img", { src: shown.picture.url, alt: "" }) : element("canvas");
	if (name !== "none") draw(face, seen, name, limitOf(name), ...fitted(CHIP));
	const ariaLabel = name === "mean" ? "Mean of all queries" : TITLES[name] ?? `Query ${name}`;
	const radio = element("input", { type: "radio", name: "map", value: name, checked: name === shown.map, ariaLabel });
	radio.onchange = () => { shown.map = name; showMap(); };
	return element("label", {}, radio, face, element("span", { textContent: title }));
}

function showMap() {
	const seen = found(), isShown = Boolean(seen) && shown.map !== "none", frame = $("frame");
	$("map").hidden = $("strength").hidden = !isShown;
	frame.tabIndex = isShown ? 0 : -1;
	frame.role = isShown ? "application" : null;
	frame.ariaLabel = isShown ? `Map over ${shown.picture.name}: arrow keys read it` : null;
	hideCell();
	if (seen) $("about").textContent = about(seen);
	if (!isShown) return;
	draw($("map"), seen, shown.map, limitOf(shown.map), ...fitted(SHARP));
	$("most").textContent = percent(limitOf(shown.map));
}

function about(seen) {
	if (shown.map === "none") return "EmbQ: its queries go back to the whole picture with the question in hand. SAP makes the visual tokens, whatever the question.";
	if (shown.map === "sap") return "SAP: what each visual token took of its window’s patches, whatever the question.";
	const [all, every] = [[seen], shown.turn.attention].map((some) => sum(some, shown.map)), beside = all - inside(seen, shown.map);
	return [
		shown.map === "mean" ? `EmbQ, the mean of ${seen.queries} queries` : `EmbQ, query ${shown.map} of ${seen.queries}`,
		all < every && `${percent(all)} of it in this picture`,
		every < 0.99 && `${percent(1 - every)} on the parts that HD takes it in`,
		beside > 0.01 && `${percent(beside)} on the padding`,
	].filter(Boolean).join(", ") + ". Under the pointer: a patch’s share.";
}

function showCell(where, isTold) {
	const cell = $("cell"), value = percent(found().maps[shown.map][where.at]);
	const sides = { left: where.left, top: where.top, width: where.right - where.left, height: where.bottom - where.top };
	for (const [name, part] of Object.entries(sides)) cell.style[name] = `${100 * part}%`;
	cell.className = `${where.top < 0.15 ? "below" : ""} ${where.left < 0.15 ? "start" : where.right > 0.85 ? "end" : ""}`;
	cell.hidden = false;
	shown.at = where;
	$("number").textContent = value;
	if (isTold) $("reading").textContent = `Row ${where.down}, column ${where.across}: ${value}`;
}

function hideCell() {
	$("cell").hidden = true;
	shown.at = null;
}

export function setUpStage() {
	const frame = $("frame"), isRead = () => shown.map !== "none" && found();
	frame.onpointermove = frame.onpointerdown = (event) => {
		const { left, top, width, height } = frame.getBoundingClientRect();
		const x = (event.clientX - left) / width, y = (event.clientY - top) / height;
		if (isRead() && Math.min(x, y) >= 0 && Math.max(x, y) < 1) showCell(patchAt(found(), x, y), false);
	};
	frame.onpointerleave = (event) => { if (event.pointerType !== "touch") hideCell(); };
	frame.onblur = hideCell;
	frame.onkeydown = (event) => {
		if (!(event.key in MOVES) || !isRead()) return;
		event.preventDefault();
		const [down, across] = MOVES[event.key], { rows, columns } = found(), { at } = shown;
		showCell(at ? patch(found(), at.row + down, at.column + across) : patch(found(), rows >> 1, columns >> 1), true);
	};
	$("opacity").oninput = () => { $("map").style.opacity = $("opacity").value / 100; };
	$("opacity").oninput();
}
