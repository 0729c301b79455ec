// The chat room: keeps one WebSocket open, shows what arrives, sends what is written.
"use strict";

const NOT_LOGGED_IN = 4401;
const list = document.getElementById("messages");
const state = document.getElementById("state");
const form = document.getElementById("write");
let socket;
let wait = 500; // milliseconds until the next attempt

function lastSeen() {
  return list.lastElementChild ? list.lastElementChild.dataset.id : "0";
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/ws/chat/?after=${lastSeen()}`);
  socket.addEventListener("open", () => { wait = 500; ready(true); });
  socket.addEventListener("message", (event) => show(JSON.parse(event.data)));
  socket.addEventListener("close", (event) => {
    ready(false);
    if (event.code === NOT_LOGGED_IN) {
      location.assign(list.dataset.login);
      return;
    }
    setTimeout(connect, wait);
    wait = Math.min(wait * 2, 10000);
  });
}

function ready(yes) {
  state.textContent = yes ? "bağlı" : "bağlı değil";
  for (const part of form.elements) part.disabled = !yes;
}

function show(message) {
  if (list.querySelector(`[data-id="${Number(message.id)}"]`)) return; // came with the page already
  const item = document.createElement("li");
  item.dataset.id = message.id;
  item.classList.toggle("mine", message.author === list.dataset.me);
  item.append(element("b", message.author), " ", element("time", message.time), element("p", message.text));
  list.append(item);
  list.scrollTop = list.scrollHeight;
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = form.elements.text.value.trim();
  if (text && socket.readyState === WebSocket.OPEN) {
    socket.send(JSON.stringify({ text }));
    form.elements.text.value = "";
  }
});

list.scrollTop = list.scrollHeight;
connect();
