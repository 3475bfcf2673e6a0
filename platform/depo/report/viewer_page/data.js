/* Loading: an index a source and chunks of whole tasks, each a script that hands over one value. */
"use strict";

const INVALID = 1, MALFORMED = 2, REPEATED = 4;
const FILES_KEPT = 40;

const waiting = new Map(); // file name to the function that takes its value
const loaded = new Map(); // file name to a promise of its value, the latest used last
const sources = new Map(); // key to a promise of the source

viewer.data = (name, value) => waiting.get(name)?.(value);

function load(name) {
  const promise = loaded.get(name) ?? fetchScript(name);
  loaded.delete(name);
  loaded.set(name, promise);
  if (loaded.size > FILES_KEPT) loaded.delete(loaded.keys().next().value);
  return promise;
}

function fetchScript(name) {
  return new Promise((resolve, reject) => {
    const over = () => {
      waiting.delete(name);
      script.remove();
    };
    const missing = () => {
      over();
      loaded.delete(name);
      reject(new Error(`data/${name}.js is missing: the view was written anew, or copied in part. Reload the page.`));
    };
    const script = el("script", { src: `data/${name}.js`, load: over, error: missing });
    waiting.set(name, resolve);
    document.head.append(script);
  });
}

/* A source with its tasks in order; each with what a list needs to know of its rollouts. */
function openSource(key) {
  if (!sources.has(key)) {
    const entry = viewer.entries.get(key);
    sources.set(key, load(entry.index).then((index) => unpack(entry, index)));
  }
  return sources.get(key);
}

function unpack(entry, index) {
  const tasks = index.tasks.map(([id, level, seed, goal, chunk, at, rollouts]) => {
    const column = (i) => rollouts.map((rollout) => rollout[i]);
    return {
      id, seed, chunk, at,
      level: index.levels[level],
      goal: index.goals[goal],
      tokens: mean(column(0)),
      steps: mean(column(1)),
      reward: mean(column(2)),
      solved: column(3).reduce((sum, x) => sum + x, 0),
      rollouts: rollouts.length,
      stops: new Set(column(4).map((stop) => index.stops[stop])),
      marks: column(5).reduce((all, marks) => all | marks, 0),
      labels: new Set(column(6)),
    };
  });
  return {
    ...entry, tasks,
    chunks: index.chunks,
    levels: [...index.levels].sort(),
    labelled: tasks.some((task) => task.labels.has("D") || task.labels.has("U")),
    byId: new Map(tasks.map((task) => [task.id, task])),
  };
}

/* All rollouts of a task, texts in place and each turn with the tokens so far. */
async function openTask(source, task) {
  const chunk = await load(source.chunks[task.chunk]);
  return chunk.tasks[task.at].map((rollout, number) => {
    const text = (i) => chunk.texts[i];
    let total = 0;
    const steps = rollout.steps.map(([observation, thought, action, reward, marks, tokens, input, logprob, reply]) => {
      total += tokens;
      return {
        observation: text(observation), thought: text(thought), action: text(action),
        reward, marks, tokens, input, logprob, total,
        reply: reply === null ? "" : text(reply),
      };
    });
    return {
      nodes: [], visits: [], values: [], ...rollout, number, steps, tokens: total,
      input: steps.reduce((sum, step) => sum + step.input, 0),
      policy: text(rollout.policy), system: text(rollout.system), final: text(rollout.final),
      error: rollout.error === undefined ? "" : text(rollout.error),
    };
  });
}

/* Ids of the tasks that say `wanted` (lower case) anywhere; reads all chunks, `going` says whether to go on. */
async function findText(source, wanted, going) {
  const found = new Set();
  const byPlace = new Map(source.tasks.map((task) => [`${task.chunk}/${task.at}`, task.id]));
  for (const [number, name] of source.chunks.entries()) {
    const chunk = await load(name);
    if (!going(number)) return null;
    const hits = new Set();
    chunk.texts.forEach((text, i) => text.toLowerCase().includes(wanted) && hits.add(i));
    if (!hits.size) continue;
    const says = (rollout) =>
      hits.has(rollout.final) || hits.has(rollout.error) ||
      rollout.steps.some((s) => hits.has(s[0]) || hits.has(s[1]) || hits.has(s[2]) || hits.has(s[8]));
    chunk.tasks.forEach((rollouts, at) => rollouts.some(says) && found.add(byPlace.get(`${number}/${at}`)));
  }
  for (const task of source.tasks) if (task.id.toLowerCase().includes(wanted)) found.add(task.id);
  return found;
}
