"""The Opacus engine: PEFT and Opacus around the whole model."""
