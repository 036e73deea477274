"""Mathematics of the diffusion process, as pure functions of tensors."""
