"""The adapter for scikit-learn: `partial_fit` at the learning rate that a daemon advises for each batch.

    from sklearn.linear_model import SGDClassifier

    from mlrs.sklearn import AdvisedLR

    model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.01)
    advised = AdvisedLR(model, "digits", horizon=len(batches))
    for X, y in batches:
        advised.partial_fit(X, y, classes=range(10))   # computes the loss, sets eta0, updates the model
    advised.finish()

It may use scikit-learn, NumPy, and what is public in the client.
"""

from mlrs.sklearn.advised import AdvisedLR

__all__ = ["AdvisedLR"]
