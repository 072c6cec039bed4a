"""Several devices and hosts: cluster, strategy, preemption, rendezvous."""
