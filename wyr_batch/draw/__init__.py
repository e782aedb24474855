"""One read as a person sees it: as HTML, as SVG, in a terminal."""
