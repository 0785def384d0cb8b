// The page works without this. With it: a click on a time plays from there, one clip at a time,
// and a file that the browser cannot play says so.
"use strict";

const problem = (video) => {
  video.closest(".screen").querySelector(".cannot").hidden = false;
};

const play = (video, start) => {
  const go = () => {
    video.currentTime = start;
    video.play().catch(() => {});
  };
  if (video.readyState >= HTMLMediaElement.HAVE_METADATA) {
    go();
  } else {
    video.addEventListener("loadedmetadata", go, { once: true });
    video.load();
    video.play().catch(() => {});
  }
};

for (const video of document.querySelectorAll("video")) {
  video.addEventListener("error", () => problem(video));
  // A file of sound alone, or of a codec that is skipped in silence.
  video.addEventListener("loadeddata", () => { if (!video.videoWidth) problem(video); });
  video.addEventListener("play", () => {
    for (const other of document.querySelectorAll("video")) {
      if (other !== video) other.pause();
    }
  });
}

for (const button of document.querySelectorAll(".moment")) {
  button.addEventListener("click", () => {
    play(button.closest("article").querySelector("video"), Number(button.dataset.start));
  });
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, textarea, select");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    document.getElementById("q").select();
  }
});
