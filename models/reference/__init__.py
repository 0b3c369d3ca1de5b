"""The reference engine: PEFT and Opacus around the whole model."""
