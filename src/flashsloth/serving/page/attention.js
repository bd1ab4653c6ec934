// Where the model looked. In: a reply's attention in one picture. Out: maps of its patches, drawn over the picture.
// A box is where the picture lies in the model's square view, 0 to 1; beside it is padding.

const COLOURS = [[0, 0, 0], [36, 14, 84], [104, 22, 122], [170, 42, 112], [226, 78, 78], [250, 136, 40], [250, 196, 66], [252, 252, 190]];
const VEIL = 0.4; // how much of the map's strength there is where there is no attention
const clamp = (value, least, most) => Math.max(least, Math.min(value, most));

/** Little-endian float16 in base64 as numbers. */
function halves(text) {
	const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)), view = new DataView(bytes.buffer);
	return Float32Array.from({ length: bytes.length / 2 }, (_, place) => {
		const bits = view.getUint16(2 * place, true), exponent = (bits >> 10) & 31, part = bits & 1023;
		return (bits >> 15 ? -1 : 1) * (exponent ? (1 + part / 1024) * 2 ** (exponent - 15) : part * 2 ** -24);
	});
}

/** Maps by name: "mean" of the queries, each query from "1", "sap". */
export function mapsOf({ grid: [rows, columns], box, sap, embq }) {
	const size = rows * columns, maps = {}, all = halves(embq ?? ""), queries = all.length / size;
	if (queries) maps.mean = new Float32Array(size);
	for (let query = 0; query < queries; query += 1) {
		maps[query + 1] = all.subarray(query * size, (query + 1) * size);
		maps[query + 1].forEach((weight, place) => { maps.mean[place] += weight / queries; });
	}
	if (sap) maps.sap = halves(sap);
	return { rows, columns, box, maps, queries };
}

export const most = (seen, name) => Math.max(...seen.map((one) => Math.max(...one.maps[name])));
export const sum = (seen, name) => seen.flatMap((one) => [...one.maps[name]]).reduce((all, weight) => all + weight, 0);

/** How much of a map lies on the picture and not on the padding, by the part of each patch that does. */
export function inside({ rows, columns, box, maps }, name) {
	const part = (place, patches, start, end) => Math.max(0, Math.min(place + 1, end * patches) - Math.max(place, start * patches));
	return maps[name].reduce((all, weight, at) =>
		all + weight * part(Math.floor(at / columns), rows, box[1], box[3]) * part(at % columns, columns, box[0], box[2]), 0);
}

/** Draw a map where the picture lies, `limit` in the brightest colour. */
export function draw(canvas, { rows, columns, box, maps }, name, limit, width, height) {
	Object.assign(canvas, { width, height });
	const context = canvas.getContext("2d"), image = context.createImageData(width, height), map = maps[name];
	const across = steps(box[0], box[2], columns, width), down = steps(box[1], box[3], rows, height);
	down.forEach(([top, bottom, low], y) => across.forEach(([left, right, far], x) => {
		const mixed = (row) => map[row * columns + left] * (1 - far) + map[row * columns + right] * far;
		image.data.set(colour((mixed(top) * (1 - low) + mixed(bottom) * low) / (limit || 1)), 4 * (y * width + x));
	}));
	context.putImageData(image, 0, 0);
}

/** For each of so many pixels from `start` to `end` of a view: the patches beside it, and how near it is to the second. */
function steps(start, end, patches, pixels) {
	return Array.from({ length: pixels }, (_, pixel) => {
		const place = clamp((start + ((pixel + 0.5) / pixels) * (end - start)) * patches - 0.5, 0, patches - 1);
		const first = Math.floor(place), far = place - first;
		return [first, Math.min(first + 1, patches - 1), far * far * (3 - 2 * far)];
	});
}

function colour(heat) {
	const place = clamp(heat, 0, 1) * (COLOURS.length - 1), first = Math.min(Math.floor(place), COLOURS.length - 2);
	const bands = COLOURS[first].map((band, at) => band + (place - first) * (COLOURS[first + 1][at] - band));
	return [...bands, 255 * Math.min(1, VEIL + 2 * heat)];
}

/** The patch at a place of the picture, each 0 to 1. */
export function patchAt(seen, x, y) {
	const [left, top, right, bottom] = seen.box;
	return patch(seen, Math.floor((top + y * (bottom - top)) * seen.rows), Math.floor((left + x * (right - left)) * seen.columns));
}

/** A patch, kept on the picture: where it lies there, and which row and column of the picture's own it is. */
export function patch({ rows, columns, box }, row, column) {
	const [y, top, bottom, down] = side(row, rows, box[1], box[3]), [x, left, right, across] = side(column, columns, box[0], box[2]);
	return { row: y, column: x, at: y * columns + x, top, bottom, left, right, down, across };
}

function side(place, patches, start, end) {
	const first = Math.floor(start * patches + 1e-6);
	const kept = clamp(place, first, Math.min(Math.ceil(end * patches - 1e-6), patches) - 1);
	const [near, far] = [kept, kept + 1].map((edge) => clamp((edge / patches - start) / (end - start), 0, 1));
	return [kept, near, far, kept - first + 1];
}
