// 16-bit mono WAV of blocks of samples in [-1, 1].

export function encodeWav(blocks, rate) {
  const count = blocks.reduce((sum, block) => sum + block.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * count));
  const write = (offset, text) => {
    for (let k = 0; k < text.length; k += 1) view.setUint8(offset + k, text.charCodeAt(k));
  };
  write(0, "RIFF");
  view.setUint32(4, 36 + 2 * count, true);
  write(8, "WAVEfmt ");
  view.setUint32(16, 16, true); // bytes in this chunk
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true); // bytes a second
  view.setUint16(32, 2, true); // bytes a sample
  view.setUint16(34, 16, true); // bits a sample
  write(36, "data");
  view.setUint32(40, 2 * count, true);
  let offset = 44;
  for (const block of blocks) {
    for (const sample of block) {
      view.setInt16(offset, Math.round(32767 * Math.max(-1, Math.min(1, sample))), true);
      offset += 2;
    }
  }
  return new Blob([view], { type: "audio/wav" });
}
