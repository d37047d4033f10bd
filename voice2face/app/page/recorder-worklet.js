// Hands the microphone's samples to the page, a tenth of a second at a time, channels averaged.

class RecorderProcessor extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(Math.round(sampleRate / 10));
    this.filled = 0;
  }

  process([channels]) {
    const length = channels[0]?.length ?? 0;
    for (let k = 0; k < length; k += 1) {
      const sum = channels.reduce((total, channel) => total + channel[k], 0);
      this.block[this.filled] = sum / channels.length;
      this.filled += 1;
      if (this.filled === this.block.length) {
        this.port.postMessage(this.block.slice());
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("recorder", RecorderProcessor);
