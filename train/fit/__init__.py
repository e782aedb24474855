"""Training of Explanandum and Explainer."""
