"""One study: baseline → trials → best → confirmation → ablation."""
