"""Methods: localizer + fitter + operator + gate + scope + grid of strengths, as data.

Every YAML file beside this one is a method (see `MethodConfig`); a localizer that has none is one
too, pushing its modules along the difference of the class means.
"""
