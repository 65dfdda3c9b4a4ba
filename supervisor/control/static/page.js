// The dashboard: the control API's stream made visible, and its commands as buttons.
// What the crew, its tools or a repository wrote is shown through textContent only, never as markup.

const KEPT = 200; // events that the page holds
const AGAIN = 1000; // milliseconds until it connects once more
const at = (id) => document.getElementById(id);

const token = ticket();
let cursor = null; // where the stream goes on after a cut
let head = -1; // the history's head that inbox and document were read at
let events = [];

function ticket() {
  // The token comes behind the #, which no request carries; from there it goes out of the address bar.
  if (location.hash.startsWith("#token=")) {
    sessionStorage.setItem("token", location.hash.slice(7));
    history.replaceState(null, "", "/");
  }
  return sessionStorage.getItem("token") ?? "";
}

function made(name, text = "", ...classes) {
  const element = document.createElement(name);
  element.textContent = text;
  element.classList.add(...classes.filter(Boolean));
  return element;
}

async function ask(path, body) {
  const answer = await fetch(path, {
    method: body === undefined ? "GET" : "POST",
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error?.text ?? said.text ?? `status ${answer.status}`);
  return said;
}

function tell(text, bad = false) {
  at("reply").textContent = text;
  at("reply").hidden = false;
  at("reply").classList.toggle("bad", bad);
}

async function command(path, body) {
  try {
    tell((await ask(path, body)).text);
    return true;
  } catch (error) {
    tell(error.message, true);
    return false;
  }
}

function button(text, act) {
  const element = made("button", text);
  element.type = "button";
  element.onclick = act;
  return element;
}

// --- the crew

function showStatus(status) {
  at("workspace").textContent = status.workspace;
  document.title = `${status.workspace.split(/[\\/]/).pop()} – Phase Supervisor`;
  at("phases").replaceChildren(...Object.entries(status.phases).map(([key, phase]) => row(key, phase)));
  const lags = status.dirty?.length ? [`not yet shown in crew/: ${status.dirty.join(", ")}`] : [];
  at("notes").replaceChildren(...[...(status.notes ?? []), ...lags].map((note) => made("li", note, "faint")));
  for (const select of [at("only"), at("task").elements.to]) {
    for (const [key, phase] of Object.entries(status.phases)) {
      if (![...select.options].some((option) => option.value === key)) select.add(new Option(phase.title, key));
    }
  }
  if (status.head !== head) {
    head = status.head;
    readInbox();
    readDocument();
  }
}

function row(key, phase) {
  const line = made("tr");
  const bar = made("progress");
  bar.max = 100;
  bar.value = phase.pct;
  const done = made("td");
  if (phase.state === "working") done.append(bar, ` ${phase.pct} %`);
  const state = made("td");
  state.append(made("span", phase.state, "state", phase.state));
  const mode = made("td", phase.mode);
  mode.title = phase.mode_reason ?? "";
  const acts = made("td");
  const held = phase.state === "paused";
  acts.append(
    button("Why", () => why(key, phase.title)), " ",
    button(held ? "Resume" : "Pause", () => command(`/api/commands/${held ? "resume" : "pause"}`, { phase: key })), " ",
    button("Restart", () => command("/api/commands/restart", { phase: key })),
  );
  const task = made("td", phase.state === "working" ? phase.detail || phase.text : phase.text);
  task.title = phase.task ?? "";
  line.append(made("td", phase.title), state, task, done, made("td", String(phase.restarts)), mode, acts);
  return line;
}

async function why(key, title) {
  try {
    const { reasons } = await ask(`/api/why/${key}`);
    at("why").querySelector("h2").textContent = `Why ${title} is where it is`;
    at("why").querySelector("ol").replaceChildren(...reasons.slice(-100).reverse().map((reason) => {
      const line = made("li");
      line.append(clock(reason.at), reason.text);
      return line;
    }));
    at("why").showModal();
  } catch (error) {
    tell(error.message, true);
  }
}

// --- what waits, and what is given

async function readInbox() {
  if (at("inbox").contains(document.activeElement)) return; // nobody's half-written answer is taken away
  try {
    const { items } = await ask("/api/inbox");
    at("nothing").hidden = items.length > 0;
    at("waiting").textContent = items.length ? `(${items.length})` : "";
    at("inbox").replaceChildren(...items.map(waiting));
  } catch (error) {
    tell(error.message, true);
  }
}

function waiting(item) {
  const line = made("li");
  line.append(made("span", `${item.what} · ${item.phase} `, "what"), made("span", item.text));
  if (item.request) line.append(made("p", item.request, "faint"));
  if (item.what === "given up") {
    line.append(button("Restart", () => command("/api/commands/restart", { phase: item.phase })));
    return line;
  }
  const form = made("form");
  const text = made("input");
  text.type = "text";
  text.required = true;
  text.placeholder = item.options.length ? item.options.join(" / ") : "your answer";
  text.setAttribute("aria-label", `Answer to ${item.id}`);
  form.append(text, made("button", "Answer"));
  form.onsubmit = async (event) => {
    event.preventDefault();
    if (await command("/api/answer", { id: item.id, text: text.value })) {
      document.activeElement.blur();
      readInbox();
    }
  };
  line.append(form);
  return line;
}

at("task").onsubmit = async (event) => {
  event.preventDefault();
  const { text, to, priority } = at("task").elements;
  const given = { text: text.value, to: to.value, priority: priority.value };
  if (await command("/api/commands/task", given)) text.value = "";
};

for (const element of document.querySelectorAll("[data-command]")) {
  element.onclick = () => {
    if (!element.dataset.sure || confirm(element.dataset.sure)) command(`/api/commands/${element.dataset.command}`, {});
  };
}

// --- what happens

function clock(seconds) {
  const element = made("time", new Date(seconds * 1000).toLocaleTimeString());
  element.dateTime = new Date(seconds * 1000).toISOString();
  return element;
}

function showEvents(more) {
  events = events.concat(more).slice(-KEPT);
  const only = at("only").value;
  const progress = at("progress").checked;
  const shown = events.filter((one) => (!only || one.phase === only) && (progress || one.type !== "progress"));
  at("events").replaceChildren(...shown.reverse().map((one) => {
    const line = made("li", "", one.type);
    line.append(clock(one.timestamp), made("span", `${one.phase || one.worker} · ${one.type} `, "what"));
    line.append([one.step, one.detail].filter(Boolean).join(": "));
    if (one.data && one.type === "screenshot") line.append(picture(one));
    return line;
  }));
}

function picture(one) {
  const image = made("img");
  image.src = `data:image/png;base64,${one.data}`;
  image.alt = one.detail;
  image.width = 240;
  return image;
}

at("only").onchange = at("progress").onchange = () => showEvents([]);

// --- the documents

async function listDocuments() {
  const { documents } = await ask("/api/documents");
  for (const one of documents) at("document").add(new Option(one.file, one.name));
}

async function readDocument() {
  const name = at("document").value;
  at("text").hidden = !name;
  if (!name) return;
  try {
    at("text").textContent = (await ask(`/api/documents/${encodeURIComponent(name)}`)).text;
  } catch (error) {
    tell(error.message, true);
  }
}

at("document").onchange = readDocument;

// --- the stream: a snapshot, then events by cursor; after a cut it goes on where it was

function connect() {
  const after = cursor ? `?after=${encodeURIComponent(cursor)}` : "";
  const socket = new WebSocket(`ws://${location.host}/api/events${after}`, ["phase-supervisor.v1", `bearer.${token}`]);
  socket.onopen = () => state("live");
  socket.onmessage = ({ data }) => {
    const said = JSON.parse(data);
    if (said.kind === "error") {
      cursor = null; // what it stands for has gone
      tell(said.text, true);
      return;
    }
    cursor = said.cursor ?? cursor;
    if (said.status) showStatus(said.status);
    if (said.events) showEvents(said.events);
  };
  socket.onclose = () => {
    state("no connection: the supervisor has ended, or another run has begun; `supervisor dashboard` opens that one", true);
    setTimeout(connect, AGAIN);
  };
}

function state(text, lost = false) {
  at("connection").textContent = text;
  at("connection").className = lost ? "lost" : "ready";
}

async function begin() {
  try {
    const past = await ask(`/api/events?last=${KEPT}`);
    showEvents(past.events);
    cursor = past.cursor;
    await listDocuments();
  } catch (error) {
    state(error.message, true);
    return;
  }
  connect();
}

begin();
