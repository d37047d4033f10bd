// The recording on the page: its name, its outline, and a button to hear it.

const at = (id) => document.getElementById(id);
const GAP_SHARE = 0.4; // of a bar's width

export class Take {
  constructor() {
    this.audio = at("audio");
    this.canvas = at("waveform");
    this.outline = [];
    at("play").addEventListener("click", () => (this.audio.paused ? this.audio.play() : this.pause()));
    for (const event of ["play", "pause", "ended"]) {
      this.audio.addEventListener(event, () => this.showPlaying());
    }
    this.audio.addEventListener("timeupdate", () => this.paint());
    this.canvas.addEventListener("click", ({ offsetX }) => {
      this.audio.currentTime = (offsetX / this.canvas.clientWidth) * this.audio.duration || 0;
    });
    new ResizeObserver(() => this.paint()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
  }

  show(file, { blob, seconds, outline }) {
    this.pause();
    URL.revokeObjectURL(this.audio.src);
    this.audio.src = URL.createObjectURL(blob);
    this.outline = outline;
    at("take-name").textContent = file.name;
    at("take-length").textContent = seconds ? `${seconds.toFixed(1)} s` : "";
    at("play").hidden = this.canvas.hidden = outline.length === 0;
    at("take").hidden = false;
    this.paint();
  }

  pause() {
    this.audio.pause();
  }

  showPlaying() {
    const playing = !this.audio.paused;
    at("play").classList.toggle("is-playing", playing);
    at("play").setAttribute("aria-label", playing ? "Pause" : "Play the recording");
    this.paint();
  }

  paint() {
    const scale = devicePixelRatio;
    const width = this.canvas.clientWidth * scale;
    const height = this.canvas.clientHeight * scale;
    if (!width || !this.outline.length) return;
    Object.assign(this.canvas, { width, height });
    const context = this.canvas.getContext("2d");
    const style = getComputedStyle(this.canvas);
    const bars = Math.min(this.outline.length, Math.floor(width / scale / 4));
    const pitch = width / bars;
    const played = this.audio.currentTime / this.audio.duration || 0;
    for (let bar = 0; bar < bars; bar += 1) {
      const from = Math.floor((bar * this.outline.length) / bars);
      const to = Math.floor(((bar + 1) * this.outline.length) / bars);
      const tall = Math.max(2 * scale, height * Math.max(...this.outline.slice(from, to)));
      const heard = this.audio.currentTime === 0 || bar / bars < played;
      context.fillStyle = heard ? style.color : style.borderColor;
      context.beginPath();
      context.roundRect(bar * pitch, (height - tall) / 2, pitch * (1 - GAP_SHARE), tall, scale);
      context.fill();
    }
  }
}
