"""Benchmarks of speed, memory, privacy estimates and quality, as ratios measured in one run.

Each takes `--help`. Results go to docs/LOG.md, with the command that reproduces them.

Engine:
    python -m benchmarks.engine.trial_engine       engine against a hand-written loop: time, memory, same numbers
    python -m benchmarks.engine.step_profile       time of a training step, operation by operation
    python -m benchmarks.engine.scaling            growth with texts, tokens, steps, shadows, rank and depth
    python -m benchmarks.engine.padding            cost of padding in the deep lane
    python -m benchmarks.engine.depth              accuracy, AUC, attack AUC and cost by depth

Privacy:
    python -m benchmarks.privacy.risk              membership attacks on simulated shadows with known truth
    python -m benchmarks.privacy.null              attacks on trained shadows where nothing can be found
    python -m benchmarks.privacy.overtraining      attacks on shadows that are over-trained on purpose
    python -m benchmarks.privacy.population        references from one shared pool against fresh ones
    python -m benchmarks.privacy.attribute         attribute inference on MovieLens users
    python -m benchmarks.privacy.audit             lower bounds and alarms of audits of a sound engine
    python -m benchmarks.privacy.shadows           four shadows, or two trials, in one bank against one by one
    python -m benchmarks.privacy.ledger            time that a large ledger adds to a trial

Quality:
    python -m benchmarks.quality.study             a whole study against the hand-written loop
    python -m benchmarks.quality.ladder            side networks over cached activations
    python -m benchmarks.quality.masking           texts masked per second, by level
    python -m benchmarks.quality.compliance        compliance check of a million rows: seconds and memory

`benchmarks.engine.floor` and `benchmarks.engine.handwritten` are parts of the first;
`benchmarks.setting` and `benchmarks.paired` are shared.
"""
