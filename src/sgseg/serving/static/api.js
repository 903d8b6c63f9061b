// The service, as the viewer asks it. Addresses are relative, so that it works below a proxy's path too.

const dialog = document.getElementById("key-dialog");
const field = document.getElementById("key");
let key = "";

export class ServiceError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Sends `image` (a File), or asks about the image that the service keeps as `imageId`. */
export async function predict({ image, imageId, zones, report, force, probability, attention, signal }) {
  const form = new FormData();
  if (imageId) form.append("image_id", imageId);
  else form.append("image", image, image.name);
  if (zones !== undefined) form.append("zones", zones.join(", ") || "none");
  if (report !== undefined) form.append("report", report);
  if (force) form.append("force", "true");
  form.append("mask_encoding", "rle");
  form.append("orientation", "standard");
  if (probability) form.append("probability", "true");
  if (attention) form.append("attention", "true");
  return (await request("v1/predict", { method: "POST", body: form, signal })).json();
}

/** The X-ray as a person sees it, a PNG. */
export async function picture(imageId) {
  return (await request(`v1/images/${imageId}`)).blob();
}

/** Synthetic X-rays as Files. */
export async function examples() {
  const list = await (await request("v1/examples")).json();
  return Promise.all(
    list.map(async ({ name, url }) => new File([await (await request(url)).blob()], name, { type: "image/png" })),
  );
}

async function request(url, options = {}) {
  let response;
  try {
    response = await fetch(url, { ...options, headers: key ? { "X-API-Key": key } : {} });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(0, "unreachable", "The service does not answer. Is “sgseg serve” still running?");
  }
  if (response.ok) return response;
  if (response.status === 401 && (await askForKey())) return request(url, options);
  const { error } = await response.json().catch(() => ({ error: { code: "", message: response.statusText } }));
  throw new ServiceError(response.status, error.code, error.message);
}

let asking = null;

/** One dialog, however many requests wait for the key; false if it was left empty. */
function askForKey() {
  asking ??= new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        key = field.value.trim();
        field.value = "";
        asking = null;
        resolve(Boolean(key));
      },
      { once: true },
    );
    dialog.showModal();
  });
  return asking;
}
