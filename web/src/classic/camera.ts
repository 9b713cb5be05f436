/** Camera and microphone: the best that this browser gives, and a sentence for the user when that is not all. */

export interface Camera {
  /** Absent when there is nothing to send; one can still see and hear the other. */
  stream?: MediaStream;
  problem?: string;
}

export async function openCamera(): Promise<Camera> {
  if (!window.isSecureContext) {
    return {
      problem:
        "Browsers allow the camera on https pages and on localhost only, so you can see and hear, but not be seen. " +
        "Start the server with “wigwag serve --dev-tls” and open this page with https.",
    };
  }
  let problem: string | undefined;
  for (const wanted of [{ audio: true, video: true }, { audio: true }, { video: true }]) {
    try {
      const stream = await navigator.mediaDevices.getUserMedia(wanted);
      return problem === undefined ? { stream } : { stream, problem };
    } catch (error) {
      problem ??= explain(error);
      // Whoever said no is not asked twice.
      if (error instanceof DOMException && error.name === "NotAllowedError") break;
    }
  }
  return { problem: `${problem ?? ""} You can see and hear, but not be seen.` };
}

function explain(error: unknown): string {
  switch (error instanceof DOMException ? error.name : "") {
    case "NotAllowedError":
      return "Camera and microphone are not allowed for this page; your browser's site settings can change that.";
    case "NotFoundError":
      return "No camera or no microphone was found.";
    case "NotReadableError":
      return "The camera or the microphone is in use by another program.";
    default:
      return `The camera could not be opened: ${String(error)}.`;
  }
}
