# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# ruff: noqa: E402, B018

# %% [markdown]
# # What is replay worth, and how sure is that?
#
# Five published points, three parameters, and two multipliers that the paper prints with two decimals.

# %%
from analysis import ReferenceCurve, effective_data_multiplier
from analysis.published import published_points

points = published_points()
flan = points[(points.subject == "Flan") & (points.series == "reference")]
flan[["x", "value"]]

# %% [markdown]
# ## The paper's form
# The least-squares A·N^(−B) + C gives the headline, 1.87×. The interval says how little five points fix it, and the
# baseline's loss lies above all of them.

# %%
curve = ReferenceCurve.fit(flan.x, flan.value, form="power_law")
result = effective_data_multiplier(curve, candidate=3.51, baseline=3.65354)
print(result)
print(*result.warnings, sep="\n")

# %% [markdown]
# ## Which form?
# `auto` interpolates inside the points, and says why it extrapolates with the form that it does.

# %%
auto = ReferenceCurve.fit(flan.x, flan.value)
print(auto.reason)
for fit in auto.alternatives:
    print(f"{fit.form:15} AICc {fit.aicc:6.1f}  leave-one-out {fit.leave_one_out:.4f} nats  {fit.parameters}")

# %% [markdown]
# ## A made-up study with a known answer
# Replaying 75 % is worth 2× here, by construction; a hundred studies show how far a headline strays from it.

# %%
from analysis import analyse
from analysis.findings.study import Settings
from analysis.simulate import simulate_runs

headlines = [
    analyse(simulate_runs(replay_tokens=(8192,), seed=seed), Settings(n_resamples=500)).groups[0].headline.multiplier
    for seed in range(100)
]
print(*headlines[:5], sep="\n")
print(sum(headline.low <= 2 <= headline.high for headline in headlines), "of 100 intervals hold the truth")

# %% [markdown]
# ## The figure

# %%
from analysis.published import flan_figure

flan_figure().figure
