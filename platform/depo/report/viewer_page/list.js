/* The list of tasks: which of them, in which order, and only the rows in sight as elements. */
"use strict";

const ROW = 58; // pixels, as in the style sheet

const OUTCOMES = {
  "": ["any outcome", () => true],
  solved: ["a solved", (a) => a.solved > 0],
  failed: ["a failed", (a) => a.solved === 0],
  some: ["a solved in some rollouts", (a) => a.solved > 0 && a.solved < a.rollouts],
  lost: ["a solved, b failed", (a, b) => b && a.solved > 0 && b.solved === 0],
  won: ["a failed, b solved", (a, b) => b && a.solved === 0 && b.solved > 0],
  both: ["both solved", (a, b) => b && a.solved > 0 && b.solved > 0],
};
const MARKS = {
  "": ["any turns", () => true],
  invalid: ["invalid actions", (a) => a.marks & INVALID],
  malformed: ["malformed replies", (a) => a.marks & MALFORMED],
  repeated: ["repeated turns", (a) => a.marks & REPEATED],
  error: ["an error", (a) => a.stops.has("error")],
  cut: ["cut off", (a) => a.stops.has("max_steps") || a.stops.has("early_stop")],
};
const LABELS = { "": "any label", D: "labelled D", U: "labelled U", none: "not labelled" };
const ORDERS = {
  "": ["by task", null],
  "tokens": ["fewest tokens", (a) => a.tokens],
  "-tokens": ["most tokens", (a) => -a.tokens],
  "steps": ["fewest steps", (a) => a.steps],
  "-steps": ["most steps", (a) => -a.steps],
  "reward": ["lowest reward", (a) => a.reward],
  "-reward": ["highest reward", (a) => -a.reward],
  "saved": ["most tokens saved by b", (a, b) => (b ? b.tokens - a.tokens : Infinity)],
  "-saved": ["most tokens added by b", (a, b) => (b ? a.tokens - b.tokens : Infinity)],
};
const NEEDS_B = new Set(["lost", "won", "both", "saved", "-saved"]);

const list = { tasks: [], other: null, chosen: "" };

/* The tasks of `a` that pass the state's filters, in its order; `texts` is null or the ids that say its text. */
function selectTasks(a, b, state, texts) {
  const outcome = OUTCOMES[state.outcome]?.[1] ?? OUTCOMES[""][1];
  const mark = MARKS[state.mark]?.[1] ?? MARKS[""][1];
  const label = state.label === "none" ? "" : state.label;
  const other = (task) => b?.byId.get(task.id);
  const found = a.tasks.filter(
    (task) =>
      (!state.level || task.level === state.level) &&
      (!state.label || task.labels.has(label)) &&
      mark(task) && outcome(task, other(task)) &&
      (!texts || texts.has(task.id)),
  );
  const order = ORDERS[state.sort]?.[1];
  if (!order) return found;
  return found
    .map((task) => [order(task, other(task)), task])
    .sort(([x], [y]) => (x === y ? 0 : x < y ? -1 : 1))
    .map(([, task]) => task);
}

function showFilters(a, b, state) {
  const options = (table) =>
    Object.entries(table).filter(([key]) => b || !NEEDS_B.has(key)).map(([key, value]) => [key, [value].flat()[0]]);
  choices(document.getElementById("level"), [["", "all levels"], ...a.levels.map((name) => [name, name])], state.level);
  choices(document.getElementById("outcome"), options(OUTCOMES), state.outcome);
  choices(document.getElementById("mark"), options(MARKS), state.mark);
  choices(document.getElementById("label"), options(LABELS), state.label);
  choices(document.getElementById("sort"), options(ORDERS), state.sort);
  document.getElementById("label").hidden = !a.labelled && !state.label;
  const text = document.getElementById("q");
  if (document.activeElement !== text) text.value = state.q;
}

function showList(tasks, all, b, chosen) {
  Object.assign(list, { tasks, other: b, chosen });
  document.getElementById("count").textContent =
    tasks.length === all ? many(all, "task") : `${count(tasks.length)} of ${many(all, "task")}`;
  document.getElementById("rows").style.height = `${tasks.length * ROW}px`;
  keepInSight();
  drawRows();
}

function keepInSight() {
  const frame = document.getElementById("list");
  const at = list.tasks.findIndex((task) => task.id === list.chosen) * ROW;
  if (at < 0) return;
  if (at < frame.scrollTop || at + ROW > frame.scrollTop + frame.clientHeight) {
    frame.scrollTop = at - frame.clientHeight / 3;
  }
}

function drawRows() {
  const frame = document.getElementById("list");
  const first = Math.max(0, Math.floor(frame.scrollTop / ROW) - 4);
  const last = first + Math.ceil(frame.clientHeight / ROW) + 8;
  fill(document.getElementById("rows"), list.tasks.slice(first, last).map((task, i) => row(task, first + i)));
}

function row(task, place) {
  const other = list.other?.byId.get(task.id);
  return el(
    "a",
    {
      class: "row", role: "option", href: `#${encode({ ...state, ...NO_ROLLOUT, task: task.id })}`,
      "aria-selected": String(task.id === list.chosen), "aria-setsize": list.tasks.length, "aria-posinset": place + 1,
      "data-task": task.id, title: task.id, tabindex: -1, "--top": `${place * ROW}px`,
    },
    el("span", { class: "what" }, el("b", {}, task.level), ` ${task.seed}`, el("small", {}, task.goal)),
    el("span", { class: "how" }, result(task), list.other ? result(other) : null),
  );
}

function result(task) {
  if (!task) return el("span", { class: "result none" }, "not tried");
  const solved = task.solved === task.rollouts ? "good" : task.solved ? "some" : "bad";
  const sign = task.rollouts > 1 ? `${task.solved}/${task.rollouts}` : task.solved ? "✓" : "✗";
  return el(
    "span",
    { class: "result", title: `reward ${decimal(task.reward)}` },
    el("i", { class: solved }, sign),
    ` ${Math.round(task.tokens)} tok · ${decimal(task.steps, task.rollouts > 1 ? 1 : 0)} st`,
  );
}
