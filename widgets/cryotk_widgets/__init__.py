"""Everything of cryotk that draws on a screen: anywidgets for notebooks, HoloViews figures."""
