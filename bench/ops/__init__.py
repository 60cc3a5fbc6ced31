"""One bench file per op; each declares its workloads and nothing else."""
