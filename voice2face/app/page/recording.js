// Opens a file: what to send of it, how long it is, and its outline.

import { toMono } from "./mixing.js";
import { encodeWav } from "./wav.js";

const READ_BY_VOICE2FACE = /\.(wav|wave|flac|ogg|oga|opus|mp3|aiff?)$/i;
const RATE = 16000; // samples a second, as voice2face hears
const BARS = 160;
const PATIENCE = 2000; // milliseconds

// Phones record formats that voice2face does not read (M4A, WebM), but their browsers do: those
// files are decoded here and sent as WAV. What cannot be decoded is sent as it is.
export async function openRecording(file, longestSeconds) {
  const asItIs = { blob: file, seconds: null, outline: [] };
  const seconds = await lengthOf(file);
  const tooLong = Number.isFinite(seconds) && seconds > longestSeconds;
  if (seconds === null || tooLong) return { ...asItIs, seconds };
  let sound;
  try {
    const context = new OfflineAudioContext(1, 1, RATE);
    sound = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    return asItIs;
  }
  const numbers = Array.from({ length: sound.numberOfChannels }, (_, channel) => channel);
  const samples = toMono(numbers.map((channel) => sound.getChannelData(channel)));
  const known = READ_BY_VOICE2FACE.test(file.name) || file.type === "audio/wav";
  const blob = known ? file : encodeWav([samples], RATE);
  return { blob, seconds: sound.duration, outline: outline(samples) };
}

// In seconds; null if the browser cannot play the file, NaN if it does not say.
function lengthOf(file) {
  const probe = new Audio();
  const address = URL.createObjectURL(file);
  return new Promise((resolve) => {
    probe.addEventListener("loadedmetadata", () => resolve(probe.duration));
    probe.addEventListener("error", () => resolve(null));
    setTimeout(() => resolve(NaN), PATIENCE);
    probe.preload = "metadata";
    probe.src = address;
    probe.load();
  }).finally(() => URL.revokeObjectURL(address));
}

// The loudest sample in each of BARS equal stretches, the loudest of all being 1.
function outline(samples) {
  const stretch = Math.max(1, Math.floor(samples.length / BARS));
  const peaks = Array.from({ length: BARS }, (_, bar) => {
    let peak = 0;
    const end = Math.min(samples.length, (bar + 1) * stretch);
    for (let k = bar * stretch; k < end; k += 1) peak = Math.max(peak, Math.abs(samples[k]));
    return peak;
  });
  const loudest = Math.max(...peaks, 1e-6);
  return peaks.map((peak) => peak / loudest);
}
