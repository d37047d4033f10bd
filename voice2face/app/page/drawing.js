// Sends a recording and reads what becomes of it: Server-Sent Events in the answer to a POST.

export async function* draw(recording, settings, signal) {
  const body = await recording.arrayBuffer().catch(() => {
    throw new Error("The recording cannot be read (any more). Choose it again, or another one.");
  });
  const answer = await fetch(`portraits?${new URLSearchParams(settings)}`, {
    method: "POST",
    body,
    headers: { "Content-Type": "application/octet-stream" },
    signal,
  }).catch((error) => {
    if (signal.aborted) throw error;
    throw new Error("The page's server cannot be reached. Is it still running?");
  });
  if (!answer.ok) {
    const { error } = await answer.json().catch(() => ({}));
    throw new Error(error ?? `The server answered ${answer.status} ${answer.statusText}.`);
  }
  yield { name: "sent" };
  for await (const event of events(answer.body.pipeThrough(new TextDecoderStream()), signal)) {
    yield event;
    if (event.name === "drawn") return;
  }
  throw new Error("The connection was lost before the portraits were drawn. Draw once more.");
}

// They end where the connection does.
async function* events(stream, signal) {
  const reader = stream.getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      if (signal.aborted) throw error;
      return { done: true };
    });
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const [, name, data] = part.match(/^event: (.*)\ndata: (.*)$/);
      yield { name, content: JSON.parse(data) };
    }
  }
}
