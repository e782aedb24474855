"""What runs the fused graph: one module a runtime, all behind `base.Engine`."""
