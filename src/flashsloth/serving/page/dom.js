// Small things that every part of the page needs. Texts enter as text, never as markup.

export const $ = (id) => document.getElementById(id);
export const all = (selector) => document.querySelectorAll(selector);
export const seconds = (value) => (value < 0.9995 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(value < 10 ? 2 : 1)} s`);
export const percent = (share) => `${(100 * share).toFixed(share >= 0.0995 ? 0 : share >= 0.00995 ? 1 : 2)} %`;

export function element(tag, properties = {}, ...children) {
	const made = Object.assign(document.createElement(tag), properties);
	made.append(...children);
	return made;
}

export function button(icon, text, onclick, properties = {}) {
	const [svg, use] = ["svg", "use"].map((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
	use.setAttribute("href", `#i-${icon}`);
	svg.append(use);
	return element("button", { type: "button", onclick, ...properties }, svg, element("span", { textContent: text }));
}

export function thumb(picture, onclick) {
	const shown = picture.width ? element("img", { src: picture.url, alt: picture.name }) : picture.name;
	return element("li", {}, element("button", { type: "button", className: "thumb", title: picture.name, onclick }, shown));
}

/** Copy a text, and say so on the button; over plain http by way of a selection. */
export async function copy(text, pressed) {
	try {
		await navigator.clipboard.writeText(text);
	} catch {
		const area = element("textarea", { value: text, className: "hidden" });
		pressed.after(area);
		area.select();
		document.execCommand("copy");
		area.remove();
	}
	pressed.lastElementChild.textContent = "Copied";
	setTimeout(() => { pressed.lastElementChild.textContent = "Copy"; }, 2000);
}

/** Reads a text that grows to a screen reader, sentence by sentence. */
export function announcer(node) {
	let said = 0;
	return {
		begin() {
			node.replaceChildren();
			said = 0;
		},
		more(text, isWhole) {
			const ends = [...text.slice(said).matchAll(/[.!?…。！？]["'”’)\]]*\s|\n/g)].map((found) => said + found.index + found[0].length);
			const end = isWhole ? text.length : ends.at(-1) ?? said;
			if (text.slice(said, end).trim()) node.append(element("p", { textContent: text.slice(said, end).trim() }));
			said = end;
		},
	};
}
