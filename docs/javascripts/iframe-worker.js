// A page that is opened as a file may start no worker, and the search needs one: there an invisible frame does the work.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    #waiting = [];
    #window;

    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.#window = frame.contentWindow;
      this.#window.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const script = frame.contentDocument.createElement("script");
      script.src = address;
      script.onload = () => {
        const waiting = this.#waiting;
        this.#waiting = null;
        waiting.forEach((data) => this.postMessage(data));
      };
      frame.contentDocument.body.append(script);
    }

    postMessage(data) {
      if (this.#waiting) this.#waiting.push(data);
      else this.#window.dispatchEvent(new MessageEvent("message", { data }));
    }
  };
}
