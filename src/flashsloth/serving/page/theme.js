"use strict";
// The theme that was chosen before, ahead of all drawing.
try {
	document.documentElement.dataset.theme = localStorage.getItem("theme") ?? "";
} catch { /* a browser that keeps nothing */ }
