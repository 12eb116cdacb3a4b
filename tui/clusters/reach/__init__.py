"""Ways to a host: this machine, ssh, the API alone, a directory that stands for one."""
