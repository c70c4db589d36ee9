// How the page is built: into dist/, with every file but the page itself named after its content.
import { defineConfig } from "vite";

export default defineConfig({
  // GraphiQL's editors do their work in workers, which are modules.
  worker: { format: "es" },
  build: {
    assetsInlineLimit: 0,
    // The editor is one large part, and comes from the server next door.
    chunkSizeWarningLimit: 8_000,
    reportCompressedSize: false,
  },
});
