/* One episode: its outcome, tokens turn by turn, and the turns themselves. */
"use strict";

const MARK_NAMES = [[INVALID, "invalid"], [MALFORMED, "malformed"], [REPEATED, "repeated"]];

/* `scale` is the width of a bar in tokens; `parted` the turn from which two episodes differ, or -1. */
function showEpisode(rollout, against, scale, parted) {
  return el(
    "article",
    { class: "episode" },
    outcome(rollout, against),
    rollout.error ? el("p", { class: "error" }, rollout.error) : null,
    strip(rollout, scale),
    rollout.system ? el("details", { class: "system" }, el("summary", {}, "system prompt"), el("p", {}, rollout.system)) : null,
    el("ol", {}, rollout.steps.map((step, i) => turn(step, i, rollout, scale, parted))),
    rollout.final ? el("p", { class: "seen final" }, rollout.final) : null,
    el("p", { class: "id" }, `${rollout.policy} · seed ${rollout.seed} · ${rollout.id}`),
  );
}

function outcome(rollout, against) {
  const change = (key) => (against ? el("small", {}, ` ${signed(rollout[key] - against[key])}`) : null);
  const steps = { n: rollout.steps.length };
  const fact = (value, name, difference) => el("span", { class: "fact" }, el("b", {}, value), ` ${name}`, difference);
  return el(
    "p",
    { class: "outcome" },
    el("span", { class: `badge ${rollout.success ? "good" : "bad"}` }, rollout.success ? "solved" : "failed"),
    el("span", { class: "badge" }, rollout.stop.replace("_", " ")),
    rollout.label ? el("span", { class: "badge label" }, rollout.label === "D" ? "D, desirable" : "U, undesirable") : null,
    fact(count(rollout.tokens), "tokens", change("tokens")),
    fact(count(steps.n), steps.n === 1 ? "step" : "steps", against ? el("small", {}, ` ${signed(steps.n - against.steps.length)}`) : null),
    fact(decimal(rollout.reward), "reward"),
    rollout.input ? fact(count(rollout.input), "tokens read", change("input")) : null,
  );
}

/* Tokens of every turn as bars side by side. */
function strip(rollout, scale) {
  const bar = (step, i) =>
    el("i", { class: wrong(step), "--share": step.tokens / scale, title: `turn ${i + 1}: ${many(step.tokens, "token")}, ${count(step.total)} so far` });
  return el("div", { class: "strip", role: "img", "aria-label": `tokens per step: ${rollout.steps.map((s) => s.tokens).join(", ")}` }, rollout.steps.map(bar));
}

const wrong = (step) => (step.marks & (INVALID | MALFORMED) ? "bad" : step.marks & REPEATED ? "some" : "");

function turn(step, i, rollout, scale, parted) {
  const node = rollout.nodes[i];
  const below = rollout.nodes.length && i === rollout.nodes.length;
  return el(
    "li",
    { class: "turn", "data-parted": i === parted },
    i === parted ? el("p", { class: "parted" }, "from here on the two differ") : null,
    below ? el("p", { class: "parted" }, "below the tree") : null,
    el("p", { class: "seen" }, step.observation),
    el(
      "div",
      { class: `said ${wrong(step)}` },
      step.marks & MALFORMED
        ? el("p", { class: "reply" }, step.reply || step.thought || step.action || "(an empty reply)")
        : [
            step.thought ? el("p", { class: "thought" }, step.thought) : null,
            el("code", { class: "action" }, step.action),
            step.reply ? el("details", {}, el("summary", {}, "the whole reply"), el("p", { class: "reply" }, step.reply)) : null,
          ],
      MARK_NAMES.filter(([bit]) => step.marks & bit).map(([, name]) => el("span", { class: `badge ${name === "repeated" ? "some" : "bad"}` }, name)),
      el(
        "p",
        { class: "bill" },
        el("i", { class: "bar", "--share": step.tokens / scale }),
        el("span", { title: "tokens of this turn" }, `${count(step.tokens)} tok`),
        el("span", { title: "tokens so far" }, `Σ ${count(step.total)}`),
        step.input ? el("span", { title: "tokens of the context it read" }, `read ${count(step.input)}`) : null,
        step.reward ? el("span", {}, `reward ${decimal(step.reward)}`) : null,
        step.logprob === null ? null : el("span", { title: "log-prob of the reply, nats" }, `logp ${decimal(step.logprob, 2)}`),
        node === undefined ? null : el("span", { title: "tree node: visits, mean return" }, `node ${node}: ${many(rollout.visits[i], "visit")}, ${decimal(rollout.values[i], 2)}`),
      ),
    ),
  );
}

/* The first turn at which two episodes of one task differ; -1 where none does. */
function partedAt(a, b) {
  const same = (x, y) => x && y && x.observation === y.observation && x.thought === y.thought && x.action === y.action && x.reply === y.reply;
  for (let i = 0; i < Math.max(a.steps.length, b.steps.length); i++) if (!same(a.steps[i], b.steps[i])) return i;
  return -1;
}
