// The page: the list of fields, the counts, the chosen cell and its corrections. The server keeps the truth.

import { Viewer } from "./viewer.js";

const POLL = 800; // milliseconds
const $ = (selector) => document.querySelector(selector);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

let state = { fields: {}, classes: [], total: [], unit: "px" };
let current = null; // number of the field that is shown
let loaded = null; // {number, version, cells} of the cells that are shown
let selected = null; // number of the chosen cell
const hidden = new Set(); // classes and "CLASS: TYPE" that are not shown
const corrections = []; // how to undo each
const viewer = new Viewer($("#picture"), { onSelect: select, onDraw: (outline) => tried(drawCell(outline)) });

// Requests

async function request(method, path, body) {
  const response = await fetch(path, { method, body: body && JSON.stringify(body) });
  if (response.ok) return response;
  if (response.status === 401) location.reload();
  const { error } = await response.json().catch(() => ({ error: `the server answers ${response.status}` }));
  throw new Error(error);
}

async function tried(promise) {
  try {
    return await promise;
  } catch (error) {
    say(error instanceof TypeError ? "The server does not answer." : error.message);
  }
}

function say(text) {
  const message = make("div", {}, text);
  message.append(make("button", { textContent: "×", ariaLabel: "Close", onclick: () => message.remove() }));
  $("#messages").append(message);
}

function filterQuery() {
  const query = new URLSearchParams({ score: $("#score").value });
  for (const name of ["smallest", "largest"]) if ($(`#${name}`).value) query.set(name, $(`#${name}`).value);
  return query;
}

// The state of all fields

let timer, asked = 0;
async function refresh() {
  clearTimeout(timer);
  const number = ++asked;
  const answer = await tried(request("GET", `/api/state?${filterQuery()}`).then((response) => response.json()));
  if (number !== asked) return; // a later question is on its way
  if (answer) state = answer;
  const numbers = Object.keys(state.fields);
  if (!numbers.includes(current)) {
    current = numbers[0] ?? null;
    loaded = null;
  }
  document.body.classList.toggle("empty", !numbers.length);
  $("#report").href = `/api/report?${filterQuery()}`;
  showFields();
  showCounts();
  await tried(showField());
  const busy = Object.values(state.fields).some((field) => field.state === "waiting" || field.state === "running");
  if (busy || !answer) timer = setTimeout(refresh, answer ? POLL : 5 * POLL);
}

function colored(element, index) {
  element.style.setProperty("--color", state.classes[index].color);
  return element;
}

function showFields() {
  const list = $("#fields");
  for (const entry of [...list.children]) if (!(entry.dataset.number in state.fields)) entry.remove();
  for (const [number, field] of Object.entries(state.fields)) {
    const key = JSON.stringify([field, number === current]);
    const old = list.querySelector(`[data-number="${number}"]`);
    if (old?.dataset.key === key) continue;
    const button = make("button", { className: "field", title: field.name, onclick: () => choose(number) });
    button.setAttribute("aria-current", number === current);
    button.append(field.state === "done"
      ? make("img", { src: `/api/fields/${number}/thumbnail`, alt: "" }) : make("div", { className: "blank" }));
    button.append(make("b", {}, field.name));
    if (field.state === "done") {
      const counts = make("span");
      state.classes.forEach(({ name }, index) => counts.append(
        colored(make("i", { className: "dot", title: name }), index), make("span", { className: "number" }, field.cells[name])));
      button.append(counts);
      const flags = Object.keys(field.flags);
      if (flags.length) button.append(make("span", { className: "bad" }, `⚠ ${flags.join(", ")}`));
      else if (field.corrected) button.append(make("span", {}, `${field.corrected} corrected`));
    } else if (field.state === "running") {
      button.append(make("progress", { max: 1, ...(field.progress ? { value: field.progress } : {}) }));
    } else button.append(make("span", { className: field.error && "bad" }, field.error ? "not an image that can be read" : "waiting"));
    const remove = make("button", { className: "remove", textContent: "×", ariaLabel: `Remove ${field.name}`, title: "Remove this field" });
    remove.onclick = () => tried(request("DELETE", `/api/fields/${number}`)).then(refresh);
    const entry = make("div", { className: "entry" }, button, remove);
    Object.assign(entry.dataset, { number, key });
    if (old) old.replaceWith(entry);
    else list.append(entry);
  }
}

// A box that shows and hides a class or a type in the picture.
function showBox(key, text) {
  const box = make("input", { type: "checkbox", checked: !hidden.has(key) });
  box.onchange = () => { hidden[box.checked ? "delete" : "add"](key); showCells(); };
  return make("label", { title: "Show in the picture" }, box, text);
}

function showCounts() {
  const field = state.fields[current];
  const done = Object.values(state.fields).filter((one) => one.state === "done").length;
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const digits = (value) => (value === null ? "–" : value < 10 ? value.toFixed(1) : value.toFixed(0));
  const perField = ({ mean, sd }) => (sd === null ? digits(mean) : `${digits(mean)} ± ${digits(sd)}`);
  const rows = state.total.map((total, index) => {
    const label = colored(showBox(index, total.name), index);
    return [label, field?.cells?.[total.name] ?? "–", total.cells, perField(total), total.edge];
  });
  const here = field?.cells ? sum(Object.values(field.cells)) : "–";
  rows.push(["All", here, sum(state.total.map((t) => t.cells)), done ? digits(sum(state.total.map((t) => t.cells)) / done) : "–", sum(state.total.map((t) => t.edge))]);
  $("#counts tbody").replaceChildren(...rows.map((row) => make("tr", {}, ...row.map((value) => make("td", {}, value)))));
  const typed = state.total.filter((total) => Object.keys(total.types).length);
  $("#types").hidden = !typed.length;
  $("#types div").replaceChildren(...typed.map(({ name, types }) => make("dl", {},
    ...Object.entries(types).sort((a, b) => b[1] - a[1]).flatMap(([kind, number]) => [
      make("dt", {}, showBox(`${name}: ${kind}`, `${name}: ${kind}`)), make("dd", {}, `${number} (${((100 * number) / sum(Object.values(types))).toFixed(1)} %)`)]))));
  for (const unit of document.querySelectorAll(".unit")) unit.textContent = state.unit;
  const names = state.classes.map(({ name }) => name);
  if ($("#draw-class").length !== names.length) {
    $("#draw-class").replaceChildren(...names.map((name, value) => make("option", { value, textContent: name })));
    $(".formats").replaceChildren(...Object.entries(state.formats).map(([name, checked]) => make("label", {},
      make("input", { type: "checkbox", name, checked }), name, make("small", {}, ` ${FORMATS[name] ?? ""}`))));
  }
}

const FORMATS = {
  coco: "outlines for CVAT, tools/adapt.py", labels: "label images for napari, Fiji, CellProfiler", geojson: "outlines for QuPath",
  roi: "regions for ImageJ and Fiji", csv: "tables: cells, counts, quality", overlay: "pictures with outlines",
};

// One field

function choose(number) {
  if (number === current) return;
  current = number;
  selected = null;
  document.querySelector(`[data-number="${number}"]`)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  refresh();
}

async function showField() {
  const field = state.fields[current];
  const done = field?.state === "done";
  const flags = Object.entries(field?.flags ?? {});
  $("#notice").hidden = !flags.length;
  $("#notice").replaceChildren(make("b", {}, "Look at this field before you count it: "), flags.map(([flag, meaning]) => `${flag} (${meaning})`).join("; "));
  $("#waiting").hidden = done || !field;
  if (field && !done) {
    $("#waiting").replaceChildren(field.error || (field.state === "running" ? "Finding cells…" : "Waiting for its turn…"));
    if (field.state === "running") $("#waiting").append(make("progress", { max: 1, ...(field.progress ? { value: field.progress } : {}) }));
    viewer.show("", 1, 1);
    loaded = null;
    return select(null);
  }
  if (done && (loaded?.number !== current || loaded.version !== field.version)) {
    const number = current;
    const answer = await (await request("GET", `/api/fields/${number}/cells`)).json();
    if (number !== current) return;
    if (loaded?.number !== number) viewer.show(`/api/fields/${number}/picture`, field.width, field.height);
    loaded = { number, ...answer };
  }
  showCells();
}

function isShown(cell) {
  const size = state.unit === "px" ? cell.px : cell.um;
  const [low, high] = ["#smallest", "#largest"].map((id) => ($(id).value === "" ? null : Number($(id).value)));
  const counts = cell.corrected || (cell.score >= Number($("#score").value) && !(size < low) && !(high !== null && size > high));
  const [name, kind] = [state.classes[cell.class].name, cell.type.split(": ")[0]];
  return !cell.deleted && counts && !hidden.has(cell.class) && !hidden.has(`${name}: ${kind}`);
}

function showCells() {
  if (!loaded) return;
  const shown = loaded.cells.filter(isShown);
  viewer.setCells(shown, state.classes);
  select(shown.some((cell) => cell.number === selected) ? selected : null);
}

// One cell

function select(number) {
  selected = number;
  viewer.select(number);
  const cell = loaded?.cells[number];
  $("#cell .none").hidden = Boolean(cell);
  $("#cell .one").hidden = !cell;
  if (!cell) return;
  $("#cell .classes").replaceChildren(...state.classes.map(({ name }, index) => {
    const button = colored(make("button", { title: `Change the class (${index + 1})` }, make("i", { className: "dot" }), name), index);
    button.setAttribute("aria-pressed", cell.class === index);
    button.onclick = () => tried(changeClass(index));
    return button;
  }));
  const types = state.classes[cell.class].types;
  $("#cell .kind").hidden = !types.length;
  $("#cell .kind select").replaceChildren(...[...(types.includes(cell.type) ? [] : [cell.type]), ...types].map(
    (value) => make("option", { value, textContent: value || "none", selected: value === cell.type })));
  const facts = {
    ...(cell.type && { "Type by": cell.typed ? "you" : `classifier (${Math.round(100 * cell.probability)} %)` }),
    Diameter: `${cell.um === null ? "" : `${cell.um.toFixed(1)} µm, `}${cell.px.toFixed(0)} px`,
    Score: cell.drawn ? "drawn by you" : cell.score.toFixed(2),
    ...(cell.edge && { "Cut by the edge": "yes" }),
    ...(cell.corrected && !cell.drawn && !cell.typed && { Class: "changed by you" }),
  };
  $("#cell dl").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

async function correct(field, number, change) {
  const { cell, version } = await (await request("PATCH", `/api/fields/${field}/cells/${number}`, change)).json();
  if (loaded?.number === field) Object.assign(loaded, { version }).cells[number] = cell;
  await refresh();
}

function remember(undo) {
  if (undo) corrections.push(undo);
  $("#undo").disabled = !corrections.length;
}

async function changeClass(index) {
  const [field, number, before] = [current, selected, loaded.cells[selected]];
  if (before.class === index) return;
  await correct(field, number, { class: index });
  remember(() => correct(field, number, { class: before.class, type: before.typed ? before.type : null }));
}

async function changeType(type) {
  const [field, number, before] = [current, selected, loaded.cells[selected]];
  await correct(field, number, { type });
  remember(() => correct(field, number, { type: before.typed ? before.type : null }));
}

async function deleteCell() {
  const [field, number] = [current, selected];
  if (number === null) return;
  await correct(field, number, { deleted: true });
  remember(() => correct(field, number, { deleted: false }));
}

async function drawCell(outline) {
  const field = current;
  const body = { outline, class: Number($("#draw-class").value) };
  const { cell, version } = await (await request("POST", `/api/fields/${field}/cells`, body)).json();
  if (loaded?.number === field) Object.assign(loaded, { version }).cells[cell.number] = cell;
  remember(() => correct(field, cell.number, { deleted: true }));
  selected = cell.number;
  await refresh();
}

async function undo() {
  const last = corrections.pop();
  remember();
  if (last) await last();
}

// Uploads and downloads

let uploading = Promise.resolve();
function upload(files) {
  const all = [...files];
  all.forEach((file, index) => {
    uploading = uploading.then(() => tried(send(file, `${file.name}${all.length > 1 ? ` (${index + 1} of ${all.length})` : ""}`))).then(refresh);
  });
  uploading = uploading.then(() => { $("#progress").hidden = true; });
}

function send(file, title) {
  $("#progress").hidden = false;
  $("#progress span").textContent = `Uploading ${title}`;
  $("#progress progress").value = 0;
  return new Promise((resolve, reject) => {
    const sender = new XMLHttpRequest(); // fetch tells nothing of an upload's progress
    sender.open("POST", `/api/files?${new URLSearchParams({ name: file.name })}`);
    sender.upload.onprogress = ({ loaded, total }) => { $("#progress progress").value = loaded / total; };
    sender.onload = () => {
      if (sender.status < 300) return resolve();
      let text = `${file.name}: the server answers ${sender.status}`;
      try { text = JSON.parse(sender.response).error; } catch { /* no JSON */ }
      reject(new Error(text));
    };
    sender.onerror = () => reject(new Error(`${file.name}: not uploaded; it is too large, or the server does not answer`));
    sender.send(file);
  });
}

async function download() {
  const boxes = [...document.querySelectorAll("#download input:checked")].map((box) => box.name);
  const query = filterQuery();
  query.set("formats", boxes.filter((name) => name !== "images").join(","));
  if (boxes.includes("images")) query.set("images", "1");
  const button = $("#open-download");
  Object.assign(button, { disabled: true, textContent: "Making zip…" });
  try {
    const blob = await (await request("GET", `/api/download?${query}`)).blob();
    const link = make("a", { href: URL.createObjectURL(blob), download: "cells.zip" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } finally {
    Object.assign(button, { disabled: false, textContent: "Download…" });
  }
}

// What visitors do

function setDrawing(on) {
  viewer.setDrawing(on);
  $("#draw").classList.toggle("on", on);
  if (on) select(null);
}

function toggleOutlines() {
  const bare = $("#picture").classList.toggle("bare");
  $("#outlines").setAttribute("aria-pressed", !bare);
}

function step(by) {
  const numbers = Object.keys(state.fields);
  choose(numbers[Math.min(Math.max(numbers.indexOf(current) + by, 0), numbers.length - 1)]);
}

const KEYS = {
  Delete: () => tried(deleteCell()), Backspace: () => tried(deleteCell()), d: () => setDrawing(!viewer.drawing),
  Escape: () => { setDrawing(false); select(null); }, h: toggleOutlines, "+": () => viewer.zoom(1.4), "-": () => viewer.zoom(1 / 1.4),
  0: () => viewer.fit(), ArrowDown: () => step(1), ArrowUp: () => step(-1),
};

for (const input of document.querySelectorAll(".files")) {
  input.onchange = () => { upload(input.files); input.value = ""; };
}
$("#examples").onclick = async ({ target }) => {
  Object.assign(target, { disabled: true, textContent: "Drawing…" });
  await tried(request("POST", "/api/examples"));
  await refresh();
  Object.assign(target, { disabled: false, textContent: "Try three synthetic smears" });
};
$("#clear").onclick = async () => {
  if (!confirm("Delete all images and corrections of this page?")) return;
  await tried(request("DELETE", "/api/session"));
  location.reload();
};
$("#open-download").onclick = () => $("#download").showModal();
$("#download").onclose = () => { if ($("#download").returnValue === "make") tried(download()); };
$("#draw").onclick = () => setDrawing(!viewer.drawing);
$("#undo").onclick = () => tried(undo());
$("#cell .kind select").onchange = ({ target }) => {
  target.blur(); // so that the keys work again
  tried(changeType(target.value));
};
$("#delete").onclick = () => tried(deleteCell());
$("#outlines").onclick = toggleOutlines;
$("#zoom-in").onclick = () => viewer.zoom(1.4);
$("#zoom-out").onclick = () => viewer.zoom(1 / 1.4);
$("#zoom-fit").onclick = () => viewer.fit();
let filtering;
for (const id of ["#score", "#smallest", "#largest"]) {
  $(id).oninput = () => {
    $("output").textContent = Number($("#score").value).toFixed(2);
    showCells();
    clearTimeout(filtering);
    filtering = setTimeout(refresh, 200);
  };
}
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select") || $("#download").open) return;
  if ((event.ctrlKey || event.metaKey) && event.key === "z") return void tried(undo());
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const index = Number(event.key) - 1;
  if (selected !== null && index in state.classes) return void tried(changeClass(index));
  if (event.key in KEYS) {
    event.preventDefault();
    KEYS[event.key]();
  }
});
for (const [name, over] of Object.entries({ dragover: true, dragleave: false, drop: false })) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", over);
    if (name === "drop") upload(event.dataTransfer.files);
  });
}
refresh();
