// Channels brought to one, by the rule of voice2face/audio/channels.py: their average, or where it
// loses nearly all of them, the loudest.

const LEAST_LEFT = 0.1; // of the power that the loudest channel alone leaves in the average

export function toMono(channels) {
  const average = new Float32Array(channels[0].length);
  for (const channel of channels) {
    for (let k = 0; k < average.length; k += 1) average[k] += channel[k] / channels.length;
  }
  const powers = channels.map(powerAboutMean);
  const most = Math.max(...powers);
  const lost = powerAboutMean(average) < (LEAST_LEFT * most) / channels.length ** 2;
  return lost ? channels[powers.indexOf(most)] : average;
}

function powerAboutMean(samples) {
  let sum = 0;
  let squares = 0;
  for (const sample of samples) {
    sum += sample;
    squares += sample * sample;
  }
  return squares / samples.length - (sum / samples.length) ** 2;
}
