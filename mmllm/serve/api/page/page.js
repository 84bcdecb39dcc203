// The page at "/": sends a picture to the API of this service and shows what comes back.
// What comes from outside is set as text, never as markup.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const WAIT_MS = 30000;
const byId = (id) => document.getElementById(id);
const forms = ["caption", "vqa", "ocr"];

let chosen = null; // the File
let source = null; // the object URL that shows it
const running = {}; // the AbortController of each form

function element(name, kind, text) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}

function headers() {
  const key = byId("key").value.trim();
  return key ? { "X-API-Key": key } : {};
}

function say(text) {
  byId("status").textContent = text;
}

function show(task, ...children) {
  byId(`${task}-answer`).replaceChildren(...children);
}

function fail(task, text) {
  show(task, element("p", "wrong", text));
  say(text);
}

function forget() {
  for (const task of forms) {
    running[task]?.abort();
    show(task);
  }
  byId("boxes").replaceChildren();
}

function choose(file) {
  forget();
  if (source) URL.revokeObjectURL(source);
  chosen = file || null;
  source = chosen ? URL.createObjectURL(chosen) : null;
  const picture = byId("picture");
  if (source) picture.src = source;
  else picture.removeAttribute("src");
  byId("frame").hidden = !chosen;
  byId("invite").hidden = Boolean(chosen);
  byId("another").hidden = byId("clear").hidden = !chosen;
  byId("drop").classList.toggle("full", Boolean(chosen));
  for (const task of forms) byId(task).querySelector("button").disabled = !chosen;
  byId("file").value = "";
  if (chosen) {
    say("Picture chosen.");
    run("caption");
  }
}

async function ask(task, fields) {
  running[task]?.abort();
  const control = (running[task] = new AbortController());
  const timer = setTimeout(() => control.abort("timeout"), WAIT_MS);
  const body = new FormData();
  body.append("image", chosen);
  for (const [name, value] of Object.entries(fields)) body.append(name, value);
  try {
    const reply = await fetch(`v1/${task}`, {
      method: "POST", body, headers: headers(), signal: control.signal,
      credentials: "omit", redirect: "error",
    });
    const content = await reply.json().catch(() => ({}));
    if (reply.ok) return content;
    if (reply.status === 401) byId("access").open = true;
    return { failed: content.detail || content.title || `The service answered ${reply.status}.` };
  } catch (error) {
    if (control.signal.reason === "timeout") return { failed: "The service did not answer in time." };
    if (control.signal.aborted) return null; // another one took its place
    return { failed: "The service cannot be reached." };
  } finally {
    clearTimeout(timer);
  }
}

function how(answer) {
  const parts = [`${Math.round(answer.timings.total_ms)} ms`];
  if (answer.score !== undefined) parts.unshift(`confidence ${Math.round(answer.score * 100)} %`);
  if (answer.cached) parts.push("from the cache");
  if (answer.degraded) parts.push(`by the fallback engine ${answer.engine}`);
  return element("p", "how", parts.join(" · "));
}

function showWords(task, words, language, answer) {
  const said = element("p", "said", words || "(nothing)");
  if (language) said.lang = language;
  show(task, said, how(answer));
  say(words);
}

function showLines(answer) {
  const boxes = byId("boxes");
  boxes.setAttribute("viewBox", `0 0 ${answer.width} ${answer.height}`);
  boxes.setAttribute("preserveAspectRatio", "none");
  const list = element("ol", "lines");
  const drawn = answer.lines.map((line) => {
    const [left, top, right, bottom] = line.box;
    const box = document.createElementNS(SVG, "rect");
    const place = { x: left, y: top, width: right - left, height: bottom - top, rx: 2 };
    for (const [name, value] of Object.entries(place)) box.setAttribute(name, value);
    const row = element("li");
    row.tabIndex = 0;
    row.append(element("span", "", line.text), element("small", "", `${Math.round(line.score * 100)} %`));
    for (const [event, on] of [["mouseenter", true], ["focus", true], ["mouseleave", false], ["blur", false]]) {
      row.addEventListener(event, () => box.classList.toggle("on", on));
    }
    list.append(row);
    return box;
  });
  boxes.replaceChildren(...drawn);
  if (drawn.length) show("ocr", list, how(answer));
  else show("ocr", element("p", "busy", "No text found."), how(answer));
  say(answer.text || "No text found.");
}

async function run(task) {
  if (!chosen) return;
  const fields = {};
  if (task === "caption") fields.language = byId("language").value;
  if (task === "vqa") fields.question = byId("question").value;
  if (task === "ocr") byId("boxes").replaceChildren();
  show(task, element("p", "busy", "One moment…"));
  const answer = await ask(task, fields);
  if (answer === null) return;
  if (answer.failed) fail(task, answer.failed);
  else if (task === "ocr") showLines(answer);
  else if (task === "vqa") showWords("vqa", answer.answer, "", answer);
  else showWords("caption", answer.caption, answer.language, answer);
}

function nameOf(language) {
  try {
    const name = new Intl.DisplayNames([language], { type: "language" }).of(language);
    return name.charAt(0).toLocaleUpperCase(language) + name.slice(1);
  } catch {
    return language;
  }
}

async function introduce() {
  const reply = await fetch("v1/info", { headers: headers(), credentials: "omit" }).catch(() => null);
  if (!reply) return say("The service cannot be reached.");
  if (reply.status === 401) byId("access").open = true;
  if (!reply.ok) return undefined;
  const info = await reply.json();
  const select = byId("language");
  const before = select.value;
  select.replaceChildren(...info.languages.map((language) => {
    const option = element("option", "", nameOf(language));
    option.value = option.lang = language;
    return option;
  }));
  const wanted = [before === "en" ? navigator.language.slice(0, 2) : before, "en"];
  select.value = wanted.find((each) => info.languages.includes(each)) ?? info.languages[0];
  byId("model").textContent = `${info.model} · ${info.engine} · mmllm ${info.version}`;
  return undefined;
}

for (const task of forms) {
  byId(task).addEventListener("submit", (event) => {
    event.preventDefault();
    run(task);
  });
}
byId("language").addEventListener("change", () => run("caption"));
byId("file").addEventListener("change", (event) => event.target.files[0] && choose(event.target.files[0]));
byId("clear").addEventListener("click", () => {
  choose(null);
  byId("file").focus();
});
byId("key").value = sessionStorage.getItem("mmllm-key") ?? "";
byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("mmllm-key", byId("key").value.trim());
  introduce();
  run("caption");
});

const drop = byId("drop");
for (const event of ["dragenter", "dragover"]) {
  document.addEventListener(event, (at) => {
    at.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (at) => at.relatedTarget ?? drop.classList.remove("over"));
document.addEventListener("drop", (at) => {
  at.preventDefault();
  drop.classList.remove("over");
  const [file] = at.dataTransfer.files;
  if (file) choose(file);
});
document.addEventListener("paste", (at) => {
  const [file] = at.clipboardData.files;
  if (file) choose(file);
});

introduce();
