// Records the microphone as samples: MediaRecorder's formats are not read everywhere.

import { encodeWav } from "./wav.js";

export function canRecord() {
  return Boolean(navigator.mediaDevices?.getUserMedia && globalThis.AudioWorkletNode);
}

export class Recorder {
  // Calls onBlock(seconds so far, level 0 to 1) as the sound comes in.
  constructor(onBlock) {
    this.onBlock = onBlock;
    this.blocks = [];
    this.count = 0;
  }

  async start() {
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    try {
      this.context = new AudioContext();
      await this.context.audioWorklet.addModule("recorder-worklet.js");
      this.node = new AudioWorkletNode(this.context, "recorder", { numberOfOutputs: 0 });
      this.node.port.onmessage = ({ data }) => this.take(data);
      this.context.createMediaStreamSource(this.stream).connect(this.node);
      await this.context.resume();
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  take(block) {
    this.blocks.push(block);
    this.count += block.length;
    const power = block.reduce((sum, sample) => sum + sample * sample, 0) / block.length;
    this.onBlock(this.count / this.context.sampleRate, Math.min(1, 5 * Math.sqrt(power)));
  }

  // The WAV, or null if nothing was heard.
  async stop() {
    this.stream.getTracks().forEach((track) => track.stop());
    const rate = this.context?.sampleRate;
    await this.context?.close();
    if (this.node) this.node.port.onmessage = null; // blocks may still be under way
    return this.count ? encodeWav(this.blocks, rate) : null;
  }
}
