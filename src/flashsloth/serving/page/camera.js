// The camera, asked for only when somebody wants a picture of it.
import { drawn } from "./pictures.js";

const REASONS = {
	NotAllowedError: "The browser does not give this page the camera: its settings say which pages get it.",
	NotFoundError: "No camera was found.",
};
const INSECURE = "Browsers give the camera only to pages of this machine (localhost), or with https.";

/** Let a person take pictures: each becomes a file for `take`. */
export function setUpCamera(dialog, buttons, take) {
	const video = dialog.querySelector("video"), said = dialog.querySelector("p"), shoot = dialog.querySelector("#shoot");
	const end = (stream) => stream?.getTracks().forEach((track) => track.stop());

	async function open() {
		shoot.disabled = true;
		video.hidden = false;
		said.textContent = "Waiting for the camera…";
		dialog.showModal();
		try {
			if (!navigator.mediaDevices) throw new Error(INSECURE);
			const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
			if (!dialog.open) return end(stream);
			video.srcObject = stream;
			await video.play();
			said.textContent = "";
			shoot.disabled = false;
			shoot.focus();
		} catch (error) {
			video.hidden = true;
			said.textContent = REASONS[error.name] ?? error.message;
		}
	}

	dialog.addEventListener("close", () => {
		end(video.srcObject);
		video.srcObject = null;
	});
	shoot.addEventListener("click", async () => {
		const blob = await drawn(video, video.videoWidth, video.videoHeight);
		dialog.close();
		take(new File([blob], "camera.jpg", { type: blob.type }));
	});
	for (const button of buttons) button.addEventListener("click", open);
}
