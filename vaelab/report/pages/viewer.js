{ // The slice viewer. Volumes are RAS, in C order: voxel (x, y, z) lies at (x * H + y) * W + z.
  const viewer = document.getElementById("viewer");
  const settings = JSON.parse(document.getElementById("viewer-settings").textContent);
  const sources = viewer.querySelectorAll("script.volume");
  const control = (id) => document.getElementById(id);
  const ZOOM = 4; // canvas pixels per voxel, for a sharp outline
  // Which axis a plane cuts, and which ones run across and up; as in vaelab.report.slices.
  const planes = [...viewer.querySelectorAll(".plane")].map((element) => ({
    element,
    name: element.dataset.plane,
    slider: element.querySelector("input"),
    ...{
      axial: { axis: 2, across: 0, up: 1, letters: "APRL" },
      coronal: { axis: 1, across: 0, up: 2, letters: "SIRL" },
      sagittal: { axis: 0, across: 1, up: 2, letters: "SIAP" },
    }[element.dataset.plane],
  }));
  const at = [0, 0, 0]; // the voxel that all three planes pass through
  let volume;

  const unpack = async (text) => { // the inverse of packed() in vaelab.report.viewer
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const values = new Uint8Array(await new Response(stream).arrayBuffer());
    for (let i = 1; i < values.length; i++) values[i] += values[i - 1];
    return values;
  };

  // How a plane lies in memory: its pixel (row, column) is voxel first - row * down - column * right.
  const layout = ({ axis, across, up }) => {
    const [D, H, W] = volume.shape;
    const strides = [H * W, W, 1];
    const [columns, rows] = [volume.shape[across], volume.shape[up]];
    const [right, down] = [strides[across], strides[up]];
    return { columns, rows, right, down, first: at[axis] * strides[axis] + (rows - 1) * down + (columns - 1) * right };
  };

  const paint = (plane, canvas) => {
    const { columns, rows, right, down, first } = layout(plane);
    const withHeat = control("overlay").checked && canvas.dataset.kind === "input";
    const grey = volume.modalities[control("modality").value][canvas.dataset.kind];
    const small = new OffscreenCanvas(columns, rows);
    const pixels = new ImageData(columns, rows);
    for (let r = 0, p = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++, p += 4) {
        const voxel = first - r * down - c * right;
        const heat = withHeat ? volume.heat[voxel] : 0;
        const opacity = settings.alpha * heat / 255;
        for (let k = 0; k < 3; k++) {
          pixels.data[p + k] = (1 - opacity) * grey[voxel] + opacity * settings.heat[heat][k];
        }
        pixels.data[p + 3] = 255;
      }
    }
    small.getContext("2d").putImageData(pixels, 0, 0);

    const finest = Math.min(...volume.spacing);
    const wide = ZOOM * volume.spacing[plane.across] / finest; // of one voxel
    const high = ZOOM * volume.spacing[plane.up] / finest;
    canvas.width = Math.round(columns * wide);
    canvas.height = Math.round(rows * high);
    const pen = canvas.getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(small, 0, 0, canvas.width, canvas.height);

    if (volume.seg && control("outline").checked) {
      const { seg } = volume;
      pen.beginPath();
      for (let r = 0; r < rows; r++) {
        for (let c = 0; c < columns; c++) {
          const voxel = first - r * down - c * right;
          if (c + 1 < columns && seg[voxel] !== seg[voxel - right]) {
            pen.moveTo((c + 1) * wide, r * high);
            pen.lineTo((c + 1) * wide, (r + 1) * high);
          }
          if (r + 1 < rows && seg[voxel] !== seg[voxel - down]) {
            pen.moveTo(c * wide, (r + 1) * high);
            pen.lineTo((c + 1) * wide, (r + 1) * high);
          }
        }
      }
      pen.strokeStyle = settings.outline;
      pen.lineWidth = 1.6;
      pen.stroke();
    }
    if (control("crosshair").checked) {
      const x = (columns - at[plane.across] - 0.5) * wide;
      const y = (rows - at[plane.up] - 0.5) * high;
      const gap = 5 * ZOOM;
      pen.beginPath();
      for (const [a, b, c, d] of [[0, y, x - gap, y], [x + gap, y, canvas.width, y], [x, 0, x, y - gap], [x, y + gap, x, canvas.height]]) {
        pen.moveTo(a, b);
        pen.lineTo(c, d);
      }
      pen.strokeStyle = "rgb(255 255 255 / .3)";
      pen.lineWidth = 1;
      pen.stroke();
    }
    if (canvas.dataset.kind === "input") {
      const [top, bottom, left, rightmost] = plane.letters;
      const [middle, centre, edge] = [canvas.width / 2, canvas.height / 2, 12];
      pen.font = "600 13px system-ui, sans-serif";
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      pen.fillStyle = "#ffd34d";
      pen.fillText(top, middle, edge);
      pen.fillText(bottom, middle, canvas.height - edge);
      pen.fillText(left, edge, centre);
      pen.fillText(rightmost, canvas.width - edge, centre);
    }
    canvas.setAttribute("aria-label", `${plane.name} slice ${at[plane.axis]} of the ${canvas.dataset.kind}`);
  };

  const draw = () => {
    if (!volume) return;
    for (const plane of planes) {
      plane.slider.value = at[plane.axis];
      plane.element.querySelector("output").textContent = `${at[plane.axis] + 1} / ${volume.shape[plane.axis]}`;
      for (const canvas of plane.element.querySelectorAll("canvas")) paint(plane, canvas);
    }
  };

  const load = async () => {
    const wanted = control("volume").value;
    const packed = JSON.parse(sources[wanted].textContent);
    control("size").textContent = "Unpacking…";
    const loaded = {
      ...packed,
      heat: await unpack(packed.heat),
      seg: packed.seg && await unpack(packed.seg),
      modalities: await Promise.all(packed.modalities.map(async ({ input, reconstruction }) =>
        ({ input: await unpack(input), reconstruction: await unpack(reconstruction) }))),
    };
    if (control("volume").value !== wanted) return; // another case was chosen meanwhile
    volume = loaded;
    at.splice(0, 3, ...volume.start);
    const chosen = control("modality").value;
    control("modality").replaceChildren(...packed.modalities.map(({ name }, n) => new Option(name, n)));
    if (packed.modalities[chosen]) control("modality").value = chosen;
    control("outline-label").hidden = !volume.seg;
    for (const plane of planes) plane.slider.max = volume.shape[plane.axis] - 1;
    const width = ({ across }) => `minmax(0, ${volume.shape[across] * volume.spacing[across]}fr)`;
    viewer.style.setProperty("--planes", planes.map(width).join(" "));
    const reduced = volume.shape.join() === volume.original.join() ? "" : `, reduced from ${volume.original.join(" × ")}`;
    control("size").textContent = `${volume.shape.join(" × ")} voxels${reduced}, 8 bits.`;
    draw();
    viewer.dataset.shows = wanted;
  };

  const move = (axis, by) => {
    at[axis] = Math.max(0, Math.min(volume.shape[axis] - 1, at[axis] + by));
    draw();
  };
  for (const plane of planes) {
    plane.slider.addEventListener("input", () => {
      at[plane.axis] = Number(plane.slider.value);
      draw();
    });
    // On a picture: arrows move the point that the planes pass through, page keys leaf through slices.
    plane.element.querySelector(".pair").addEventListener("keydown", (event) => {
      const [axis, by] = {
        ArrowLeft: [plane.across, 1], ArrowRight: [plane.across, -1],
        ArrowUp: [plane.up, 1], ArrowDown: [plane.up, -1],
        PageUp: [plane.axis, 1], PageDown: [plane.axis, -1],
        Home: [plane.axis, -Infinity], End: [plane.axis, Infinity],
      }[event.key] ?? [];
      if (axis === undefined || !volume) return;
      event.preventDefault();
      move(axis, by);
    });
    for (const canvas of plane.element.querySelectorAll("canvas")) {
      canvas.addEventListener("click", (event) => {
        const box = canvas.getBoundingClientRect();
        const point = (share, length) => Math.max(0, Math.min(length - 1, Math.floor((1 - share) * length)));
        at[plane.across] = point((event.clientX - box.left) / box.width, volume.shape[plane.across]);
        at[plane.up] = point((event.clientY - box.top) / box.height, volume.shape[plane.up]);
        draw();
      });
    }
  }
  for (const id of ["modality", "overlay", "outline", "crosshair"]) control(id).addEventListener("change", draw);
  control("volume").addEventListener("change", load);
  for (const button of document.querySelectorAll("[data-volume]")) {
    button.addEventListener("click", () => {
      control("volume").value = button.dataset.volume;
      viewer.scrollIntoView({ behavior: "smooth" });
      load();
    });
  }
  if ("DecompressionStream" in window && "OffscreenCanvas" in window) load();
  else control("size").textContent = "This browser is too old to unpack volumes; any of 2023 or later can.";
}
