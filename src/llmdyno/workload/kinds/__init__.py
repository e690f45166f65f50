"""The workloads, one file each. The interface is in `llmdyno.workload`."""
