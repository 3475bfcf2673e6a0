/* The address holds what is chosen; everything on the page follows from it. */
"use strict";

const NO_ROLLOUT = { node: "", rollout: "", node_b: "", rollout_b: "" };
const FILTERS = ["q", "level", "outcome", "mark", "label", "sort"];
const EMPTY = { a: "", b: "", task: "", ...NO_ROLLOUT, ...Object.fromEntries(FILTERS.map((name) => [name, ""])) };

let state = { ...EMPTY };
let turnOf = 0; // rises with every change, so that what comes late is not shown
const said = { key: "", tasks: null }; // the last text looked for, and where it was found

viewer.catalogue = ({ name, sources: entries }) => {
  viewer.name = name;
  viewer.entries = new Map(entries.map((entry) => [entry.key, entry]));
  document.title = `${name}: trajectories`;
  document.getElementById("name").textContent = name;
  for (const id of FILTERS) {
    const field = document.getElementById(id);
    const take = () => go({ [id]: field.value.trim() }, true);
    if (id === "q") field.addEventListener("input", () => later(take));
    else field.addEventListener("change", take);
  }
  for (const id of ["a", "b"]) {
    document.getElementById(id).addEventListener("change", (event) => go({ ...NO_ROLLOUT, [id]: event.target.value }));
  }
  document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("list").addEventListener("scroll", drawRows, { passive: true });
  window.addEventListener("resize", drawRows);
  window.addEventListener("hashchange", show);
  window.addEventListener("keydown", press);
  show();
};

let timer;
function later(action) {
  clearTimeout(timer);
  timer = setTimeout(action, 150);
}

function encode(values) {
  const plain = (text) => encodeURIComponent(text).replace(/%2F/g, "/").replace(/%3A/g, ":");
  return Object.keys(EMPTY).filter((key) => values[key]).map((key) => `${key}=${plain(values[key])}`).join("&");
}

function decode(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, "").replaceAll("+", "%2B"));
  return { ...EMPTY, ...Object.fromEntries([...given].filter(([key]) => key in EMPTY)) };
}

function go(changes, quietly = false) {
  state = { ...state, ...changes };
  const hash = `#${encode(state)}`;
  if (quietly) location.replace(hash);
  else location.hash = hash;
}

async function show() {
  const mine = ++turnOf;
  const current = () => mine === turnOf;
  state = decode(location.hash);
  const keys = [...viewer.entries.keys()];
  const unknown = [state.a, state.b].filter((key) => key && !viewer.entries.has(key));
  if (!viewer.entries.has(state.a)) state.a = keys.find((key) => !key.includes(":")) ?? keys[0];
  if (!viewer.entries.has(state.b)) state.b = "";
  showSources(unknown);
  try {
    const [a, b] = await Promise.all([openSource(state.a), state.b ? openSource(state.b) : null]);
    if (!current()) return;
    showFilters(a, b, state);
    const tasks = selectTasks(a, b, state, await textFound(a, current));
    if (!current()) return;
    showList(tasks, a.tasks.length, b, state.task);
    await showTask(a, b, current);
  } catch (error) {
    if (current()) fill(document.getElementById("main"), el("p", { class: "error" }, error.message));
  }
}

async function textFound(source, current) {
  const wanted = state.q.toLowerCase();
  if (!wanted) return null;
  const key = JSON.stringify([source.key, wanted]);
  if (said.key === key) return said.tasks;
  const status = document.getElementById("count");
  const tasks = await findText(source, wanted, (done) => {
    if (current()) status.textContent = `looking through file ${count(done + 1)} of ${count(source.chunks.length)}`;
    return current();
  });
  if (tasks) Object.assign(said, { key, tasks });
  return tasks;
}

function showSources(unknown) {
  const groups = new Map();
  for (const entry of viewer.entries.values()) {
    groups.set(entry.group, [...(groups.get(entry.group) ?? []), [entry.key, entry.label]]);
  }
  const options = [...groups].map(([group, members]) => ({ group, options: members }));
  choices(document.getElementById("a"), options, state.a);
  choices(document.getElementById("b"), [["", "none beside it"], ...options], state.b);
  const { tasks, rollouts, bytes, success } = viewer.entries.get(state.a);
  document.getElementById("about").textContent =
    (unknown.length ? `This run has no ${unknown.join(", ")}. ` : "") +
    `${many(tasks, "task")}, ${many(rollouts, "trajectory", "trajectories")}, ` +
    `${decimal(bytes / 1e6, 1)} MB · success: ${success}`;
}

async function showTask(a, b, current) {
  const main = document.getElementById("main");
  document.body.classList.toggle("reading", Boolean(state.task));
  if (!state.task) {
    fill(main, el("p", { class: "note" }, "Choose a task."));
    return;
  }
  const sides = [[a, ""], ...(b ? [[b, "_b"]] : [])];
  const found = await Promise.all(
    sides.map(async ([source, suffix]) => {
      const task = source.byId.get(state.task);
      return { source, suffix, task, rollouts: task ? await openTask(source, task) : [] };
    }),
  );
  if (!current()) return;
  for (const side of found) Object.assign(side, choose(side));
  const shown = found.map((side) => side.rollout).filter(Boolean);
  const scale = Math.max(1, ...shown.flatMap((rollout) => rollout.steps.map((step) => step.tokens)));
  const parted = shown.length === 2 ? partedAt(...shown) : -1;
  const [first] = shown.length === 2 ? shown : [null];
  fill(
    main,
    taskHead(found.find((side) => side.task)?.task),
    el("div", { class: "sides" }, found.map((side, i) => showSide(side, i ? first : null, scale, parted))),
  );
  main.scrollTop = 0;
}

/* The tree of a side, the rollouts through its chosen node, and the chosen one of them. */
function choose({ rollouts, suffix }) {
  const tree = rollouts.some((rollout) => rollout.nodes.length) ? growTree(rollouts) : null;
  const node = Number(state[`node${suffix}`]);
  const through = tree?.nodes.get(node)?.rollouts ?? rollouts;
  const wanted = through.find((rollout) => String(rollout.number) === state[`rollout${suffix}`]);
  return { tree, node, through, rollout: wanted ?? through[0] };
}

function taskHead(task) {
  const place = list.tasks.findIndex((other) => other.id === state.task);
  const step = (by, name, sign) =>
    el("button", { type: "button", title: name, "aria-label": name, disabled: !list.tasks[place + by], click: () => move(by) }, sign);
  return el(
    "div",
    { class: "task" },
    el("a", { class: "back", href: `#${encode({ ...state, ...NO_ROLLOUT, task: "" })}` }, "‹ tasks"),
    el("h2", {}, state.task),
    step(-1, "previous task", "‹"),
    step(1, "next task", "›"),
    task ? el("p", { class: "goal" }, task.goal) : null,
  );
}

function showSide({ source, suffix, tree, node, through, rollout, rollouts }, against, scale, parted) {
  const link = (changes) => `#${encode({ ...state, ...changes })}`;
  const toNode = (id) => link({ [`node${suffix}`]: id ? String(id) : "", [`rollout${suffix}`]: "" });
  const chip = (other) =>
    el(
      "a",
      {
        class: `rollout ${other.success ? "good" : "bad"}`, href: link({ [`rollout${suffix}`]: String(other.number) }),
        "aria-current": other === rollout ? "true" : false,
      },
      `#${other.index} ${other.success ? "✓" : "✗"} ${count(other.tokens)} tok${other.label ? ` ${other.label}` : ""}`,
    );
  return el(
    "section",
    { class: "side", "data-source": source.key },
    el("h3", {}, `${suffix ? "b" : "a"}: ${source.label}`),
    rollout ? null : el("p", { class: "note" }, "This task was not tried here."),
    tree ? showTree(tree, node, rollout, toNode) : null,
    rollouts.length > 1
      ? el(
          "div",
          { class: "rollouts" },
          el("p", { class: "note" }, node ? `${many(through.length, "rollout")} of ${rollouts.length} through node ${node}` : many(rollouts.length, "rollout")),
          through.map(chip),
        )
      : null,
    rollout ? showEpisode(rollout, against, scale, parted) : null,
  );
}

function move(by) {
  const next = list.tasks[list.tasks.findIndex((task) => task.id === state.task) + by];
  if (next) go({ ...NO_ROLLOUT, task: next.id });
}

function moveRollout(by) {
  const chips = [...document.querySelectorAll(".side:first-child .rollout")];
  chips[chips.findIndex((chip) => chip.hasAttribute("aria-current")) + by]?.click();
}

function press(event) {
  const typing = event.target.closest?.("input, select");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (typing) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const keys = {
    j: () => move(1), ArrowDown: () => move(1), ArrowRight: () => move(1),
    k: () => move(-1), ArrowUp: () => move(-1), ArrowLeft: () => move(-1),
    n: () => moveRollout(1), p: () => moveRollout(-1),
    "/": () => document.getElementById("q").focus(),
    Escape: () => go({ ...NO_ROLLOUT, task: "" }),
  };
  if (event.key.startsWith("Arrow") && event.target.id !== "list") return;
  if (!(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
}
