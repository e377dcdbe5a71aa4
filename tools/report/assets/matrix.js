// SPDX-License-Identifier: MIT OR Apache-2.0
// The matrix. Errors by moments as a table, one for each guest, policy, firmware and RAS; many
// syndromes as a map of their fields, where the eye finds a pattern that a long list hides.

// From this many errors on, a table is too long to be seen at a glance.
const MANY_ERRORS = 48;
const AET = ["UC", "UEU", "UEO", "UER", "res. 4", "res. 5", "CE", "res. 7"];
const grids = [];

function groupBy(list, key) {
  const groups = new Map();
  for (const one of list) {
    const name = key(one);
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(one);
  }
  return groups;
}

const isSyndrome = (name) => /^0x[0-9a-f]{1,7}$/.test(name) && parseInt(name, 16) < 0x2000000;

// What sets a table apart from its neighbors.
function facetName(item) {
  const parts = [];
  if (index.values.policy.length > 1) parts.push("policy " + valueOf(item, "policy"));
  if (index.values.ras.length > 1) parts.push("RAS " + valueOf(item, "ras"));
  if (index.values.firmware.length > 1) parts.push("firmware " + valueOf(item, "firmware"));
  return parts.join(", ");
}

function newGrid(node) {
  const grid = { node, rows: [] };
  grids.push(grid);
  return grid;
}

function newCell(grid, tag, row, members, label) {
  const node = el(tag, { role: "gridcell", class: "cell", tabindex: "-1" });
  const cell = { node, members, label, grid, row: grid.rows.indexOf(row), column: row.length };
  row.push(cell);
  node.cell = cell;
  drawCell(cell, members);
  return node;
}

// Shows what the cases of a cell came to, the worst first.
function drawCell(cell, shown) {
  const list = shown.length ? shown : cell.members;
  const outcomeOf = (item) => [item.was && item.change !== "ok" && item.change ? item.was.class : "", item.now ? item.now.class : ""];
  const groups = [...groupBy(list, (item) => (comparing && item.change ? outcomeOf(item).join() : last(item).class)).values()]
    .sort((one, other) => Math.max(...other.map(urgency)) - Math.max(...one.map(urgency)));
  // Of a map's thousands of cells most have one case: they are no more than their tile.
  const single = cell.grid.isMap && !comparing && list.length === 1;
  const segments = el("span", { class: "segments", "aria-hidden": "true" });
  const words = [];
  for (const members of groups) {
    const [item] = members;
    const number = members.length > (comparing ? 1 : 0) && list.length > 1 && el("i", {}, String(members.length));
    const amount = list.length > 1 ? members.length + " " : "";
    if (comparing && item.change && item.change !== "ok") {
      const before = item.was ? tile(classOf(item.was)) : el("span", { class: "tile none" }, "+");
      const after = item.now ? tile(classOf(item.now), "span", {}, number) : el("span", { class: "tile none" }, "\u2212", number);
      segments.append(el("span", { class: "pair" }, before, after));
      words.push(amount + (item.was ? classOf(item.was).title : "new") + " to " + (item.now ? classOf(item.now).title : "gone"));
    } else {
      segments.append(tile(classOf(last(item)), "span", {}, number));
      words.push(amount + classOf(last(item)).title);
    }
  }
  const worst = list.reduce((one, other) => (urgency(other) > urgency(one) ? other : one), list[0]);
  const wrong = list.some((item) => last(item).ok === 0 || urgency(item) === 4);
  cell.worst = worst;
  const names = cell.node.classList;
  names.toggle("wrong", wrong && !comparing);
  names.toggle("worse", comparing && list.some((item) => item.worse));
  names.toggle("same", comparing && list.every((item) => !item.change));
  names.toggle("off", shown.length === 0);
  const state = wrong ? ", unexpected" : comparing && worst.change ? ", changed" : "";
  cell.node.setAttribute("aria-label", plain(cell.label + ": " + words.join(", ") + state));
  if (!single) {
    cell.node.replaceChildren(segments);
  } else if (!cell.node.firstChild) {
    const kind = classOf(last(worst));
    names.add("tile", styleOf(kind));
    cell.node.textContent = kind.letter;
  }
}

function drawTable(members, errors, moments, name) {
  const head = el("tr", { role: "row" }, el("td", {}));
  for (const moment of moments) {
    head.append(el("th", { scope: "col", role: "columnheader" }, index.values.moment[moment]));
  }
  const body = el("tbody", { role: "rowgroup" });
  const label = "Errors by moments" + (name ? ", " + name : "");
  const table = el("table", { class: comparing ? "grid two" : "grid", role: "grid", "aria-label": label }, el("thead", { role: "rowgroup" }, head), body);
  const grid = newGrid(table);
  const places = groupBy(members, (item) => item.error + " " + item.moment);
  for (const error of errors) {
    const title = index.values.error[error];
    const line = el("tr", { role: "row" }, el("th", { scope: "row", role: "rowheader", title: plain(title) }, title));
    const row = [];
    grid.rows.push(row);
    for (const moment of moments) {
      const here = places.get(error + " " + moment);
      if (here) {
        line.append(newCell(grid, "td", row, here, title + ", " + index.values.moment[moment]));
      } else {
        row.push(null);
        line.append(el("td", { class: "void", role: "gridcell", "aria-label": "no case" }));
      }
    }
    row.line = line;
    body.append(line);
  }
  return table;
}

function rowLabel(high) {
  const ids = high & 0x1000000;
  const other = high & ~0x1001c00;
  const aet = (high >> 10) & 7;
  return (ids ? "IDS " + aet : AET[aet]) + (other ? " +" + other.toString(16) : "");
}

// One map: DFSC to the right, everything else of the syndrome downwards.
function drawMap(members, title) {
  const map = el("div", { class: "iss", role: "grid", "aria-label": "Syndromes, " + title });
  const grid = newGrid(map);
  grid.isMap = true;
  const head = el("div", { class: "row", role: "row" }, el("span", { class: "label soft" }, "DFSC"));
  for (let dfsc = 0; dfsc < 64; dfsc += 1) {
    const shown = dfsc % 4 === 0 || dfsc === 0x11;
    const near = dfsc === 0x10;
    head.append(el("span", { class: dfsc === 0x11 ? "head async" : "head", role: "columnheader" },
      shown && !near ? dfsc.toString(16).padStart(2, "0") : ""));
  }
  map.append(head);
  const places = groupBy(members, (item) => parseInt(valueOf(item, "error"), 16));
  const rows = [...new Set([...places.keys()].map((iss) => iss & ~0x3f))].sort((one, other) => one - other);
  let ids = rows[0] & 0x1000000;
  for (const high of rows) {
    if ((high & 0x1000000) !== ids) map.append(el("div", { class: "gap" }));
    ids = high & 0x1000000;
    const row = [];
    grid.rows.push(row);
    const line = el("div", { class: "row", role: "row" }, el("span", { class: "label", role: "rowheader" }, rowLabel(high)));
    for (let dfsc = 0; dfsc < 64; dfsc += 1) {
      const here = places.get(high | dfsc);
      if (here) {
        line.append(newCell(grid, "span", row, here, valueOf(here[0], "error")));
      } else {
        row.push(null);
        line.append(el("span", { class: "void" }));
      }
    }
    map.append(line);
  }
  return map;
}

function drawFacet(members, name, moments, parent) {
  const errors = [...new Set(members.map((item) => item.error))].sort((one, other) => one - other);
  const many = errors.length > MANY_ERRORS && errors.every((error) => isSyndrome(index.values.error[error]));
  const facet = (title, node, kind) => {
    const grid = grids[grids.length - 1];
    grid.facet = el("div", { class: "facet " + kind }, title && el("h3", {}, title), el("div", { class: "scroll" }, node));
    parent.append(grid.facet);
  };
  if (!many) {
    facet(name, drawTable(members, errors, moments, name), "table");
    return;
  }
  for (const moment of moments) {
    const here = members.filter((item) => item.moment === moment);
    const title = [index.values.moment[moment], name].filter(Boolean).join(", ");
    if (here.length) facet(title, drawMap(here, title), "map");
  }
}

function drawMatrix() {
  const section = document.getElementById("matrix");
  const keys = el("p", { class: "keys" }, el("span", { class: "keyboard" }, el("kbd", {}, "\u2190\u2191\u2193\u2192"), " move, ",
    el("kbd", {}, "Enter"), " opens a case, ", el("kbd", {}, "Esc"), " closes it, ", el("kbd", {}, "/"), " searches. "),
    comparing ? "Left: before; right: after. Faint: as it was. Red frame: worse." : "Framed, with a corner: not as expected.");
  section.append(el("h2", {}, comparing ? "What changed, error by moment" : "Error by moment"), keys);
  const guests = el("div", { class: "guests" });
  section.append(guests);
  for (const [guest, members] of groupBy(items, (item) => item.guest)) {
    const moments = [...new Set(members.map((item) => item.moment))].sort((one, other) => one - other);
    const parent = el("div", { class: "facets" });
    for (const [name, here] of groupBy(members, facetName)) drawFacet(here, name, moments, parent);
    const name = index.values.guest.length > 1 && el("h2", {}, index.values.guest[guest]);
    guests.append(el("div", { class: parent.querySelector(".map") ? "one-guest wide" : "one-guest" }, name, parent));
  }
  for (const grid of grids) {
    const first = grid.rows.flat().find(Boolean);
    if (first) first.node.tabIndex = 0;
  }
  section.addEventListener("click", (event) => {
    const node = event.target.closest(".cell");
    if (node) openCase(node.cell.worst, node);
  });
  section.addEventListener("keydown", moveInGrid);
}

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function focusCell(cell) {
  for (const other of cell.grid.rows.flat()) if (other && other.node.tabIndex === 0) other.node.tabIndex = -1;
  cell.node.tabIndex = 0;
  cell.node.focus();
}

function moveInGrid(event) {
  const cell = event.target.cell;
  if (!cell || event.ctrlKey || event.altKey || event.metaKey) return;
  const { rows } = cell.grid;
  const can = (one) => one && !one.grid.rows[one.row].hidden;
  let target = null;
  if (event.key in STEPS) {
    const [down, right] = STEPS[event.key];
    let row = cell.row + down;
    let column = cell.column + right;
    while (rows[row] && column >= 0 && column < rows[row].length && !target) {
      if (can(rows[row][column])) target = rows[row][column];
      row += down;
      column += right;
    }
  } else if (event.key === "Home") {
    target = rows[cell.row].find(can);
  } else if (event.key === "End") {
    target = [...rows[cell.row]].reverse().find(can);
  } else if (event.key === "Enter" || event.key === " ") {
    openCase(cell.worst, cell.node);
  } else {
    return;
  }
  event.preventDefault();
  if (target) focusCell(target);
}

// Leaves what matches; rows and tables without any are hidden.
function filterMatrix(kept) {
  for (const grid of grids) {
    let any = false;
    for (const row of grid.rows) {
      let some = false;
      for (const cell of row) {
        if (!cell) continue;
        const shown = cell.members.filter((item) => kept.has(item));
        const before = cell.shown === undefined ? cell.members.length : cell.shown;
        if (shown.length !== before || (cell.members.length > 1 && shown.length !== cell.members.length)) drawCell(cell, shown);
        cell.shown = shown.length;
        some = some || shown.length !== 0;
      }
      row.hidden = Boolean(row.line) && !some;
      if (row.line) row.line.hidden = row.hidden;
      any = any || some;
    }
    grid.facet.hidden = !any;
    const first = grid.rows.flat().find((cell) => cell && cell.node.tabIndex === 0);
    if (any && (!first || grid.rows[first.row].hidden)) {
      const next = grid.rows.filter((row) => !row.hidden).flat().find(Boolean);
      if (next) next.node.tabIndex = 0;
    }
  }
}
