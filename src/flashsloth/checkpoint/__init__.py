"""Adapters: what a fine-tuned model keeps of its own, in a folder of PEFT's layout, and how it goes back into its base.

folder       what an adapter's folder holds, and where its base is
digest       a base by its tensors, so that a wrong one is refused
merging      base and adapter to one model, or to an ordinary checkpoint
proof        that a merged model computes what its parts did
inspection   what an adapter is, told from its files

How adapters are made is `flashsloth.training.lora`.
"""
