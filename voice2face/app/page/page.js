// Puts the page together: a recording and settings go out, portraits come in.

import { draw } from "./drawing.js";
import { showEvidence } from "./evidence.js";
import { Faces } from "./faces.js";
import { Recorder, canRecord } from "./recorder.js";
import { openRecording } from "./recording.js";
import { Take } from "./take.js";

const LONGEST_RECORDED_SECONDS = 60;
const LARGEST_RANDOM_SEED = 2 ** 31;
const SLIDERS = ["steps", "guidance", "variety"];

const at = (id) => document.getElementById(id);
const limits = await fetch("about")
  .then((answer) => answer.json())
  .catch((error) => {
    complain("The page's server is busy. Reload the page in a minute.");
    throw error; // nothing works without it
  });
const faces = new Faces(limits.portraits);
const take = new Take();
let recording = null; // what is sent, a Blob
let latest = null; // the file that was chosen last
let recorder = null; // while recording
let starting = false; // while the microphone is asked for
let drawing = null; // an AbortController, while portraits are drawn
let begun = false; // whether unfinished portraits took the place of the ones before
let drawnSeed = "0"; // of the first of the portraits drawn last

at("about").textContent = `voice2face ${limits.version}, checkpoint ${limits.checkpoint}`;
at("steps").max = limits.steps;

function complain(message) {
  at("problem").textContent = message;
}

function say(message) {
  at("status").textContent = message;
}

// The recording

async function use(file) {
  complain("");
  if (!drawing) say("");
  if (file.size > limits.recording_bytes) {
    const megabytes = Math.round(limits.recording_bytes / 1e6);
    complain(`${file.name} is over ${megabytes} MB; cut out a part, or save it as FLAC or MP3.`);
    return;
  }
  at("draw").disabled = !drawing; // which can be stopped
  latest = file;
  const opened = await openRecording(file, limits.recording_seconds);
  if (latest !== file) return; // another one was chosen while this one was opened
  if (opened.seconds > limits.recording_seconds) {
    at("draw").disabled = !recording; // the one before is still there
    const minutes = Math.round(limits.recording_seconds / 60);
    complain(`${file.name} is over ${minutes} minutes; cut out a part with one speaker.`);
    return;
  }
  drawing?.abort();
  recording = opened.blob;
  take.show(file, opened);
  at("told").hidden = true;
  at("draw").disabled = false;
}

function useChosen() {
  const [file] = at("file").files;
  at("file").value = ""; // so that the same file can be chosen again
  if (file) use(file);
}

at("file").addEventListener("change", useChosen);

const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragover", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  document.body.classList.add("is-dropping");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("is-dropping");
});
addEventListener("drop", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  document.body.classList.remove("is-dropping");
  use(event.dataTransfer.files[0]);
});

function showRecording(on) {
  at("record").classList.toggle("is-recording", on);
  at("record-label").textContent = on ? "Stop" : "Record";
  at("record").style.setProperty("--level", 0);
}

async function startRecording() {
  complain("");
  take.pause();
  recorder = new Recorder((seconds, level) => {
    at("record-label").textContent = `Stop, ${Math.floor(seconds)} s`;
    at("record").style.setProperty("--level", level);
    if (seconds >= LONGEST_RECORDED_SECONDS) stopRecording();
  });
  starting = true; // a button that is disabled would lose the keyboard
  try {
    await recorder.start();
    showRecording(true);
  } catch (error) {
    recorder = null;
    complain(`The microphone cannot be used (${error.message}). Allow it, or choose a file.`);
  }
  starting = false;
}

async function stopRecording() {
  const ending = recorder;
  recorder = null;
  const wav = await ending?.stop();
  showRecording(false);
  if (wav) use(new File([wav], "Your recording", { type: "audio/wav" }));
}

if (canRecord()) {
  at("record").addEventListener("click", () => {
    if (!starting) (recorder ? stopRecording : startRecording)();
  });
} else {
  at("record").hidden = true;
  at("recording-hint").textContent +=
    " Browsers allow recording on pages over HTTPS or on this very machine only.";
}

// The settings

for (const name of SLIDERS) {
  const show = () => {
    const value = Number(at(name).value);
    at(`${name}-value`).textContent = name === "steps" ? value : value.toFixed(1);
  };
  at(name).value = limits.usual[name];
  at(name).addEventListener("input", show);
  show();
}

function moveSeed(by) {
  const digits = at("seed").value.replace(/\D/g, "") || drawnSeed;
  const moved = BigInt(digits) + BigInt(by);
  at("seed").value = moved < 0n ? 0n : moved;
}

at("seed-back").addEventListener("click", () => moveSeed(-limits.portraits));
at("seed-on").addEventListener("click", () => moveSeed(limits.portraits));
at("seed-any").addEventListener("click", () => {
  at("seed").value = Math.floor(Math.random() * LARGEST_RANDOM_SEED);
});

// The portraits

function showDrawing(on) {
  document.body.classList.toggle("is-drawing", on);
  at("draw").textContent = on ? "Stop" : "Draw four portraits";
  at("draw").type = on ? "button" : "submit"; // Enter in a field stops nothing
  at("faces").setAttribute("aria-busy", on);
}

const heed = {
  sent() {
    say("Listening");
  },
  waiting({ ahead }) {
    say(ahead === 1 ? "One visitor is ahead of you." : `${ahead} visitors are ahead of you.`);
  },
  heard(evidence) {
    begun = true;
    faces.clear();
    showEvidence(evidence);
    say("Drawing");
  },
  step({ step, steps, pictures }) {
    at("progress").max = steps;
    at("progress").value = step;
    if (pictures) faces.preview(pictures, step / steps);
  },
  drawn({ portraits }) {
    faces.show(portraits);
    drawnSeed = portraits[0].seed;
    say("Done.");
  },
  error({ message }) {
    throw new Error(message);
  },
};

async function drawPortraits() {
  complain("");
  say("Sending the recording");
  begun = false;
  at("progress").value = 0;
  drawing = new AbortController();
  const { signal } = drawing;
  showDrawing(true);
  bringIntoView(at("result"));
  const settings = {};
  const moved = SLIDERS.filter((name) => Number(at(name).value) !== limits.usual[name]);
  // other steps than the trained ones would come with another guidance than the one shown
  if (moved.includes("steps") && !moved.includes("guidance")) moved.push("guidance");
  for (const name of moved) settings[name] = at(name).value;
  if (at("seed").value.trim()) settings.seed = at("seed").value.trim();
  try {
    for await (const { name, content } of draw(recording, settings, signal)) heed[name](content);
  } catch (error) {
    if (begun) faces.clear();
    if (begun) at("told").hidden = true;
    say(signal.aborted ? "Stopped." : "");
    if (!signal.aborted) complain(error.message);
    if (!signal.aborted) bringIntoView(at("problem"));
  }
  showDrawing(false);
  drawing = null;
}

function bringIntoView(element) {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const { top, bottom } = element.getBoundingClientRect();
  if (top >= 0 && Math.min(bottom, top + 300) <= innerHeight) return;
  element.scrollIntoView({ behavior: still ? "auto" : "smooth", block: "start" });
}

at("controls").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!drawing && recording) drawPortraits();
});
at("draw").addEventListener("click", (event) => {
  if (!drawing) return;
  event.preventDefault(); // by the time it would submit, the button may be of that type again
  drawing.abort();
});

useChosen(); // what was chosen while this script was still on its way
