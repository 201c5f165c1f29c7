"""The adapter for Transformers: a `Trainer` that sets the learning rate of every update to advice.

    trainer = advised(Trainer(model, arguments, train_dataset=dataset), "gpt2-wikitext")
    trainer.train()

The same for a class of your own is `class MyTrainer(AdvisedTrainerMixin, Trainer)`, made with
`MyTrainer(..., task="gpt2-wikitext")`. It may use Transformers, PyTorch, and what is public in the client and
in `mlrs.torch`.
"""

from mlrs.transformers.trainer import AdvisedTrainerMixin, advised

__all__ = ["AdvisedTrainerMixin", "advised"]
