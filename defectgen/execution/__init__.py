"""Where tasks are done: one by one in this process, or by workers on this machine or a cluster."""
