"""Train and judge variational autoencoders of medical images.

The command line is ``python -m vaelab.run``. In a notebook, a run that is there is
``vaelab.runs.load("outputs/<run>")``, and one is trained by hand like this::

    data = ChestXrayDataModule("phantoms", "splits", "cache", phantoms=PhantomXray())
    model = Conv2dVAE(z_dim=256)
    objective, annealing = ELBOLoss(), Linear(kl_beta=1.0, kl_annealing_epochs=5)
    data.setup("fit")
    samples = len(data.splits["train"]), len(data.splits["val"])
    module = VAELitModule(model, objective, annealing, AdamW(lr=1e-3), *samples)
    trainer = L.Trainer(max_epochs=20)
    trainer.fit(module, data)
    detector = AnomalyDetector(model, SquaredError())
    prediction = detector(data.dataset("test").images)  # x_hat, heatmap, score

``vaelab.training.fit.fit`` does the same with checkpoints, snapshots and health checks.
"""
