/* The search tree of a task, from the rollouts that went through it: drawn small, and as nested lists. */
"use strict";

/* The root of a tree of {id, parent, children, depth, action, visits, value, rollouts}. Its visits and mean
   return are those of its children together: every simulation goes through one of them. */
function growTree(rollouts) {
  const root = { id: 0, parent: null, children: [], depth: 0, action: "start", visits: 0, value: 0, rollouts: [...rollouts] };
  const nodes = new Map([[0, root]]);
  for (const rollout of rollouts) {
    let parent = root;
    rollout.nodes.forEach((id, depth) => {
      if (!nodes.has(id)) {
        const { action, marks } = rollout.steps[depth];
        const node = {
          id, parent, marks, children: [], depth: depth + 1, rollouts: [],
          action: marks & MALFORMED ? "(malformed)" : action,
          visits: rollout.visits[depth], value: rollout.values[depth],
        };
        nodes.set(id, node);
        parent.children.push(node);
      }
      parent = nodes.get(id);
      parent.rollouts.push(rollout);
    });
  }
  for (const node of nodes.values()) node.children.sort((x, y) => y.visits - x.visits || x.id - y.id);
  root.visits = root.children.reduce((sum, child) => sum + child.visits, 0);
  root.value = root.visits ? root.children.reduce((sum, child) => sum + child.visits * child.value, 0) / root.visits : 0;
  return { root, nodes };
}

/* `link` makes the address of a node; `chosen` is the chosen node's id, `rollout` the one whose way is shown. */
function showTree(tree, chosen, rollout, link) {
  const path = new Set([0, ...rollout.nodes]);
  const values = [...tree.nodes.values()].map((node) => node.value);
  const low = Math.min(0, ...values), high = Math.max(1, ...values);
  const share = (node) => `${Math.round((100 * (node.value - low)) / (high - low))}%`;
  return el(
    "section",
    { class: "tree" },
    drawTree(tree, chosen, path, link, share),
    el("ul", {}, branch(tree.root, chosen, path, link, share, tree.root.visits)),
    el("p", { class: "note" }, "Visits and mean return at the end of the search; a branch that no rollout entered leaves no trace."),
  );
}

function branch(node, chosen, path, link, share, most) {
  return el(
    "li",
    {},
    el(
      "a",
      {
        class: "node", href: link(node.id), "data-node": node.id, "data-path": path.has(node.id),
        "aria-current": node.id === chosen ? "true" : false, "--value": share(node), "--share": node.visits / most,
      },
      el("span", { class: "action" }, node.action),
      node.marks & INVALID ? el("span", { class: "badge bad" }, "invalid") : null,
      el("span", { class: "visits" }, `${count(node.visits)}×`),
      el("span", { class: "value" }, decimal(node.value, 2)),
    ),
    node.children.length ? el("ul", {}, node.children.map((child) => branch(child, chosen, path, link, share, most))) : null,
  );
}

/* Depth runs to the right; leaves stand one below the other, a parent in the middle of its children. */
function drawTree(tree, chosen, path, link, share) {
  const WIDE = 46, HIGH = 15, EDGE = 12;
  let leaves = 0, deepest = 0;
  const place = (node) => {
    node.children.forEach(place);
    deepest = Math.max(deepest, node.depth);
    node.x = EDGE + WIDE * node.depth;
    node.y = node.children.length ? (node.children[0].y + node.children.at(-1).y) / 2 : EDGE + HIGH * leaves++;
  };
  place(tree.root);
  const nodes = [...tree.nodes.values()];
  const radius = (node) => 3 + 5 * Math.sqrt(node.visits / (tree.root.visits || 1));
  const curve = ({ parent, x, y }) => `M${parent.x} ${parent.y}C${parent.x + WIDE / 2} ${parent.y} ${x - WIDE / 2} ${y} ${x} ${y}`;
  const width = 2 * EDGE + WIDE * deepest, height = 2 * EDGE + HIGH * Math.max(0, leaves - 1);
  return el(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `search tree of ${many(nodes.length - 1, "node")}` },
    nodes.filter((node) => node.parent).map((node) => el("path", { d: curve(node), "data-path": path.has(node.id) })),
    nodes.map((node) =>
      el(
        "circle",
        {
          cx: node.x, cy: node.y, r: radius(node), "data-node": node.id, "data-path": path.has(node.id),
          "data-chosen": node.id === chosen, "--value": share(node), click: () => (location.hash = link(node.id)),
        },
        el("title", {}, `${node.action}: ${many(node.visits, "visit")}, mean return ${decimal(node.value, 2)}`),
      ),
    ),
  );
}
