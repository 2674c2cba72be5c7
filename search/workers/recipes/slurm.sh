#!/bin/bash
# Workers of a study as a Slurm array. Try it: sbatch slurm.sh +space=nlp storage=postgresql
#SBATCH --job-name=search --array=0-7 --cpus-per-task=1 --time=4:00:00
#SBATCH --requeue --signal=TERM@120 --open-mode=append
srun python -m search.run workers=1 "$@" && exit
[ $? -gt 128 ] && scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" # by a signal, as near the time limit
