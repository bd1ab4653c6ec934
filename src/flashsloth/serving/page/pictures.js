// Pictures. In: files. Out: what is shown of them, and what is sent.

const KINDS = /\.(png|jpe?g|webp|gif|bmp|tiff?|heic|heif|avif)$/i;
const SMALLEST = 64; // pixels across: no picture is made smaller

export const isPicture = (file) => file.type.startsWith("image/") || KINDS.test(file.name);
export const sizeText = ({ width, height }) => (width ? `${width} × ${height}` : "");
export const kindOf = (picture, blob = picture.blob) => blob.type || `image/${/[^.]*$/.exec(picture.name)[0].toLowerCase()}`;

/** A file as a picture. `width` is 0 where this browser cannot show it; the server may be able to. */
export async function pictureOf(file) {
	const url = URL.createObjectURL(file), image = await loaded(url);
	return { name: file.name, blob: file, url, width: image.naturalWidth, height: image.naturalHeight, sent: null, removed: false };
}

async function loaded(src) {
	const image = Object.assign(new Image(), { src });
	await image.decode().catch(() => {});
	return image;
}

/** A picture as it is sent. */
export function dataUrl(picture) {
	const { blob } = picture.sent ?? picture, reader = new FileReader();
	return new Promise((resolve, reject) => {
		reader.onload = () => resolve(`data:${kindOf(picture, blob)};base64,${reader.result.split(",")[1]}`);
		reader.onerror = () => reject(new Error(`${picture.name} can no longer be read: choose it again.`));
		reader.readAsDataURL(blob);
	});
}

const sentBytes = (picture) => Math.ceil((picture.sent ?? picture).blob.size / 3) * 4 + 100;

/** Make the largest pictures smaller until all fit into so many bytes. Returns those that were. */
export async function fit(pictures, room) {
	const changed = new Set();
	for (;;) {
		const over = pictures.reduce((sum, picture) => sum + sentBytes(picture), -room);
		const able = pictures.filter((picture) => (picture.sent ?? picture).width > SMALLEST);
		if (over <= 0 || !pictures.length) return [...changed];
		if (!able.length) throw new Error("These pictures are more than the server takes at once: remove one.");
		const largest = able.reduce((a, b) => (sentBytes(b) > sentBytes(a) ? b : a)), from = largest.sent ?? largest;
		const by = Math.min(0.85, 0.95 * Math.sqrt(Math.max(1 - over / sentBytes(largest), 0.1)));
		const width = Math.ceil(from.width * by), height = Math.ceil(from.height * by);
		largest.sent = { blob: await drawn(await loaded(largest.url), width, height), width, height };
		changed.add(largest);
	}
}

/** A JPEG of what can be drawn; what is transparent becomes white, as the server makes it. */
export function drawn(source, width, height) {
	const canvas = Object.assign(document.createElement("canvas"), { width, height }), context = canvas.getContext("2d");
	context.fillStyle = "#fff";
	context.fillRect(0, 0, width, height);
	context.imageSmoothingQuality = "high";
	context.drawImage(source, 0, 0, width, height);
	return new Promise((resolve) => { canvas.toBlob(resolve, "image/jpeg", 0.92); });
}
