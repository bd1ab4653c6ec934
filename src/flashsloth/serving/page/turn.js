// A question and its answer, as they stand in the conversation.
import { button, copy, element, seconds, thumb } from "./dom.js";

/** What was asked, and what came of it so far. `shown` are the pictures of its request, in order. */
export const newTurn = (question, pictures) => ({
	question, pictures, shown: [], answer: "", status: "running", failure: null, finish_reason: null,
	usage: null, times: {}, server_times: {}, resolution: null, looked: null, attention: null,
});

/** Its view. `actions`: look, again, code and picture, each called with the turn, or a picture. */
export class TurnView {
	constructor(turn, actions) {
		Object.assign(this, { turn, actions });
		this.thumbs = element("ul", { className: "thumbs" });
		this.answer = element("p", { className: "answer" });
		this.figures = element("p", { className: "figures" });
		this.failure = element("div", { className: "failure", role: "alert" });
		this.look = button("eye", "Where it looked", () => actions.look(turn), { className: "look" });
		this.buttons = element("div", { className: "row actions" }, this.look,
			button("copy", "Copy", (event) => copy(turn.answer, event.currentTarget)), this.againButton(),
			button("code", "As code", () => actions.code(turn)));
		this.node = element("li", { className: "turn" }, this.thumbs, element("h2", { textContent: turn.question }),
			this.answer, this.failure, this.figures, this.buttons);
	}

	againButton() {
		return button("again", "Ask again", () => this.actions.again(this.turn), { className: "again" });
	}

	update() {
		const { turn, node } = this, { status, failure } = turn, isRunning = status === "running";
		node.dataset.status = status;
		node.classList.toggle("empty", !turn.answer);
		this.thumbs.replaceChildren(...turn.pictures.filter((one) => !one.removed).map((one) => thumb(one, () => this.actions.picture(one))));
		this.thumbs.hidden = !this.thumbs.firstChild;
		this.answer.textContent = turn.answer || (isRunning ? (turn.shown.length ? "Looking" : "Thinking") : "No text came.");
		this.figures.textContent = isRunning ? "" : figuresOf(turn).join(" · ");
		this.look.hidden = !turn.attention;
		this.buttons.hidden = isRunning || Boolean(failure && !turn.answer);
		this.failure.hidden = !failure;
		clearInterval(this.clock);
		if (failure) this.showFailure(failure);
	}

	showFailure({ message, wait, status }) {
		const again = this.againButton();
		again.hidden = status === 401;
		this.failure.replaceChildren(element("p", { textContent: message }), again);
		const end = performance.now() + 1000 * wait;
		const tell = () => {
			const left = Math.ceil((end - performance.now()) / 1000);
			again.disabled = left > 0;
			again.lastChild.textContent = left > 0 ? `Ask again in ${left} s` : "Ask again";
			if (left <= 0) clearInterval(this.clock);
		};
		if (wait) this.clock = setInterval(tell, 250);
		tell();
	}
}

/** What an answer took, in words. */
function figuresOf({ status, times, server_times: { first_token: first, total }, usage, finish_reason: reason, resolution }) {
	const tokens = usage?.completion_tokens, rate = (tokens - 1) / (total - first);
	return [
		status === "stopped" && "stopped",
		times.first && `${seconds(times.first)} to the first token`,
		times.total && `${seconds(times.total)} in all`,
		tokens && `${tokens} token${tokens > 1 ? "s" : ""}`,
		total - first > 0.1 && `${rate.toFixed(rate < 10 ? 1 : 0)} tokens/s`,
		reason === "length" && "cut off, as long as an answer may be",
		resolution === "hd" && "HD",
	].filter(Boolean);
}
