// The page: pictures and questions in, answers as they are made, and where the model looked.
import { $, all, announcer, button, copy, element, thumb } from "./dom.js";
import { Failure, answer, findModel, hasKey, useKey } from "./api.js";
import { dataUrl, fit, isPicture, pictureOf, sizeText } from "./pictures.js";
import { mapsOf } from "./attention.js";
import { pictureOnStage, setUpStage, showAttention, showOnStage } from "./stage.js";
import { TurnView, newTurn } from "./turn.js";
import { setUpCamera } from "./camera.js";
import * as code from "./code.js";

const SAMPLES = {
	"shapes.png": ["What color is the square?", "Is there a purple rectangle?", "How many shapes are there?"],
	"squares.png": ["How many squares are there?", "What shape is red?"],
	"sun.png": ["What does it say?"],
};
const IDEAS = ["What is in the picture?", "What does it say?"];
const THEMES = { "": "System", light: "Light", dark: "Dark" };
const ROOM = 4096; // bytes of a body beside its pictures and texts

const state = { model: null, pictures: [], turns: [], running: null, latest: null, withKey: null };
const live = announcer($("live")), address = new URL(".", location).href;
const isPhone = () => matchMedia("(pointer: coarse)").matches;
const pending = () => state.pictures.filter((one) => !one.turn);
const chosen = (name) => document.querySelector(`[name=${name}]:checked`).value;
const look = (picture) => showOnStage(state.pictures, picture);

// What is shown.

function show() {
	const isWelcome = !state.turns.length && !state.pictures.length;
	document.body.classList.toggle("talking", !isWelcome);
	$("samples").hidden = !isWelcome;
	$("over").hidden = isWelcome;
	$("export").hidden = !state.turns.length;
	$("remove").disabled = Boolean(state.running);
	$("pending").replaceChildren(...pending().map((one) => {
		const item = thumb(one, () => look(one));
		item.append(button("close", "", () => remove(one), { className: "icon", ariaLabel: `Remove ${one.name}` }));
		return item;
	}));
	showIdeas();
	showOnStage(state.pictures, undefined, state.latest);
}

function showIdeas() {
	const last = state.pictures.at(-1), asked = state.turns.map((turn) => turn.question);
	const ideas = SAMPLES[last?.sample] ?? (last && !state.turns.length ? IDEAS : []);
	const open = state.running ? [] : ideas.filter((idea) => !asked.includes(idea));
	$("ideas").replaceChildren(...open.map((idea) => element("button", { type: "button", textContent: idea, onclick: () => ask(idea) })));
}

function note(text = "", action = "", act = null) {
	const [said, offer] = $("note").children;
	said.textContent = text;
	Object.assign(offer, { textContent: action, hidden: !action, onclick: () => { note(); act(); } });
}

/** Do what makes the conversation longer, and stay at its end, if that is where the reader is. */
function following(act, isAlways = false) {
	const box = matchMedia("(min-width: 900px)").matches ? $("turns") : document.scrollingElement;
	const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 80;
	act();
	if (isAlways || isAtEnd) box.scrollTop = box.scrollHeight;
}

// Pictures.

async function add(files, sample = null) {
	const usable = files.filter(isPicture), others = files.filter((file) => !isPicture(file));
	const most = state.model?.max_pictures ?? 8, room = most - state.pictures.length;
	note(others.length ? `${others.map((file) => file.name).join(", ")}: not a picture.`
		: usable.length > room ? `A conversation takes at most ${most} pictures.` : "");
	const made = await Promise.all(usable.slice(0, room).map(pictureOf));
	if (!made.length) return;
	state.pictures.push(...made.map((one) => Object.assign(one, { turn: null, sample })));
	show();
	look(made.at(-1));
	if (!isPhone()) $("question").focus();
}

function remove(picture) {
	picture.removed = true;
	state.pictures = state.pictures.filter((one) => one !== picture);
	for (const turn of state.turns) turn.view.update();
	show();
	note(`${picture.name} is removed: answers to come do not see it.`);
	$("question").focus();
}

async function trySample(name, question) {
	const blob = await (await fetch(name)).blob();
	await add([new File([blob], name, { type: blob.type })], name);
	ask(question);
}

// Asking.

function ask(question) {
	if (state.running) return;
	const turn = newTurn(question.trim(), pending());
	for (const one of turn.pictures) one.turn = turn;
	turn.view = new TurnView(turn, { look: (one) => showAttention(state.pictures, one), again, code: showCode, picture: look });
	state.turns.push(turn);
	following(() => $("turns").append(turn.view.node), true);
	run(turn);
}

function again(turn) {
	if (!state.running) run(Object.assign(turn, newTurn(turn.question, turn.pictures)));
}

/** The messages that a turn is asked with. What failed without an answer is left out; its pictures come later. */
function messagesFor(turn) {
	const messages = [];
	let pictures = [];
	for (const one of state.turns.slice(0, state.turns.indexOf(turn) + 1)) {
		pictures = [...pictures, ...one.pictures.filter((picture) => !picture.removed)];
		if (one !== turn && !one.answer) continue;
		messages.push({ role: "user", pictures, text: one.question });
		pictures = [];
		if (one !== turn) messages.push({ role: "assistant", text: one.answer });
	}
	return messages;
}

const picturesOf = (messages) => messages.flatMap((message) => message.pictures ?? []);

/** Messages as they are sent. */
function wired(messages) {
	return Promise.all(messages.map(async ({ role, text, pictures }) => {
		if (!pictures?.length) return { role, content: text };
		const urls = await Promise.all(pictures.map(dataUrl));
		return { role, content: [...urls.map((url) => ({ type: "image_url", image_url: { url } })), { type: "text", text }] };
	}));
}

async function bodyOf(turn) {
	const { id, hd, max_body_bytes: most } = state.model;
	const texts = new Blob([JSON.stringify(turn.asked.map((one) => one.text))]).size;
	const smaller = await fit(turn.shown, most - ROOM - texts);
	if (smaller.length) note(`Sent smaller, since the server takes no more: ${smaller.map((one) => `${one.name}, ${sizeText(one.sent)}`).join("; ")}.`);
	const body = { model: id, messages: await wired(turn.asked), stream: true, stream_options: { include_usage: true } };
	return turn.shown.length ? { ...body, flashsloth: { attention: true, ...(hd && { resolution: chosen("resolution") }) } } : body;
}

async function run(turn) {
	const stop = new AbortController();
	state.running = stop;
	turn.asked = messagesFor(turn);
	turn.shown = picturesOf(turn.asked);
	following(() => turn.view.update());
	note();
	showIdeas();
	live.begin();
	swap("send", "stop");
	try {
		await connect();
		const body = await bodyOf(turn), began = performance.now(), since = () => (performance.now() - began) / 1000;
		turn.resolution = body.flashsloth?.resolution ?? null;
		for await (const chunk of answer(body, stop.signal)) take(turn, chunk, since);
		turn.times.total = since();
		turn.status = "done";
	} catch (error) {
		turn.status = stop.signal.aborted ? "stopped" : "failed";
		if (!stop.signal.aborted) turn.failure = failureOf(error, turn);
	}
	state.running = null;
	if (turn.attention) state.latest = turn;
	live.more(turn.answer, true);
	following(() => { turn.view.update(); show(); });
	swap("stop", "send");
}

function take(turn, { usage, choices: [choice] }, since) {
	turn.usage = usage ?? turn.usage;
	if (choice?.delta.content) {
		turn.times.first ??= since();
		turn.answer += choice.delta.content;
		live.more(turn.answer, false);
		following(() => turn.view.update());
	}
	turn.finish_reason = choice?.finish_reason ?? turn.finish_reason;
	const { times, resolution, attention } = choice?.flashsloth ?? {};
	turn.server_times = times ?? turn.server_times;
	turn.resolution = resolution ?? turn.resolution;
	turn.looked = attention ?? turn.looked;
	if (attention) turn.attention = attention.pictures.map(mapsOf);
}

function failureOf(error, turn) {
	if (error.status === 401) askForKey(() => again(turn));
	return error instanceof Failure ? error : new Failure(error.message);
}

/** One button for another, with its focus. */
function swap(from, to) {
	const had = document.activeElement === $(from);
	$(to).hidden = false;
	if (had) $(to).focus();
	$(from).hidden = true;
}

// Server and key.

async function connect() {
	if (state.model) return;
	state.model = await findModel();
	$("model").textContent = state.model.id;
	$("resolution").hidden = !state.model.hd;
}

function greet() {
	connect().catch((error) => (error.status === 401 ? askForKey(greet) : note(error.message, "Try again", greet)));
}

function askForKey(then) {
	state.withKey = then;
	if (hasKey()) $("key-why").textContent = "The server does not take this key. Is it complete?";
	$("key-form").hidden = false;
	$("key").value = "";
	$("key").focus();
}

// The whole conversation.

function startOver() {
	state.running?.abort();
	const { pictures, turns, latest } = state;
	const lay = (laid) => {
		Object.assign(state, laid);
		$("turns").replaceChildren(...state.turns.map((turn) => turn.view.node));
		show();
	};
	lay({ pictures: [], turns: [], latest: null });
	note("A new conversation.", "Undo", () => lay({ pictures, turns, latest }));
	$("question").focus();
}

async function save() {
	const turns = state.turns.map(({ view, pictures, shown, asked, attention, looked, failure, ...more }) =>
		({ ...more, pictures: shown.map((one) => one.name), attention: looked, error: failure?.message ?? null }));
	const last = state.turns.at(-1), messages = await wired([...messagesFor(last), { role: "assistant", text: last.answer }]);
	const whole = { server: address, model: state.model?.id, saved: new Date(), messages, turns };
	const href = URL.createObjectURL(new Blob([JSON.stringify(whole, null, 1)], { type: "application/json" }));
	element("a", { href, download: "flashsloth.json" }).click();
}

function showCode({ asked, resolution }) {
	const request = { model: state.model.id, messages: asked, ...(state.model.hd && resolution && { flashsloth: { resolution } }) };
	const write = () => { $("source").textContent = code[chosen("language")](request, address, hasKey()); };
	for (const one of all("[name=language]")) one.onchange = write;
	write();
	$("code").showModal();
}

// What a person does.

function setUpQuestion() {
	const question = $("question");
	const grow = () => {
		question.style.height = "auto";
		question.style.height = `${question.scrollHeight}px`;
	};
	const submit = (event) => {
		event.preventDefault();
		if (state.running || !question.value.trim()) return question.focus();
		ask(question.value);
		question.value = "";
		grow();
	};
	question.oninput = grow;
	question.onkeydown = (event) => {
		if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !isPhone()) submit(event);
	};
	$("ask").onsubmit = submit;
	$("hint").textContent = isPhone() ? "" : "Shift+Enter: new line";
	$("stop").onclick = () => state.running?.abort();
	document.addEventListener("keydown", (event) => {
		if (event.key === "Escape" && !document.querySelector("dialog[open]")) state.running?.abort();
	});
}

function setUpPictures() {
	for (const one of all(".pick")) one.onclick = () => $("files").click();
	$("files").onchange = () => {
		add([...$("files").files]);
		$("files").value = "";
	};
	document.addEventListener("paste", (event) => {
		const { files } = event.clipboardData;
		if (!files.length || event.clipboardData.getData("text/plain")) return;
		event.preventDefault();
		add([...files]);
	});
	const drag = (event, isOver) => {
		document.body.classList.toggle("dragging", isOver);
		if (event.dataTransfer.types.includes("Files")) event.preventDefault();
	};
	document.addEventListener("dragover", (event) => drag(event, event.dataTransfer.types.includes("Files")));
	document.addEventListener("dragleave", (event) => drag(event, Boolean(event.relatedTarget)));
	document.addEventListener("drop", (event) => {
		drag(event, false);
		if (event.dataTransfer.files.length) add([...event.dataTransfer.files]);
	});
	setUpCamera($("webcam"), all(".camera"), (file) => add([file]));
	$("remove").onclick = () => remove(pictureOnStage());
	$("samples").append(...Object.entries(SAMPLES).map(([src, [question]]) =>
		element("button", { onclick: () => trySample(src, question) }, element("img", { src, alt: "" }), question)));
}

function setUpTheme() {
	const { dataset } = document.documentElement, names = Object.keys(THEMES), theme = () => dataset.theme ?? "";
	const tell = () => { $("theme-name").textContent = `Theme: ${THEMES[theme()]}`; };
	$("theme").onclick = () => {
		dataset.theme = names[(names.indexOf(theme()) + 1) % names.length];
		try {
			localStorage.setItem("theme", theme());
		} catch { /* so not for long */ }
		tell();
	};
	tell();
}

function setUpRest() {
	$("over").onclick = startOver;
	$("export").onclick = save;
	$("key-form").onsubmit = (event) => {
		event.preventDefault();
		useKey($("key").value.trim());
		$("key-form").hidden = true;
		$("question").focus();
		state.withKey();
	};
	for (const one of all("dialog .cancel")) one.onclick = () => one.closest("dialog").close();
	$("copy-code").onclick = () => copy($("source").textContent, $("copy-code"));
}

setUpTheme();
setUpQuestion();
setUpPictures();
setUpStage();
setUpRest();
show();
greet();
