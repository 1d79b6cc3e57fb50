// Images and masks become a model, every slide a table of objects, by Nextflow:
//   nextflow run slides.nf --images images --masks masks --slides 'slides/*.tif'
// Stopped? The same line with -resume does what is missing.
params.images = 'images'
params.masks = 'masks'
params.slides = 'slides/*.tif'
params.train = '--set width=16 --time-budget 20m'

process train {
    publishDir 'results', mode: 'copy'

    input:
    path images
    path masks

    output:
    path 'model.safetensors'

    script:
    """
    unetkit import ${images} --labels ${masks} data.zarr
    unetkit weights data.zarr
    unetkit train data.zarr -o model.safetensors ${params.train}
    """
}

process objects {
    publishDir 'results', mode: 'copy'

    input:
    path slide
    path model

    output:
    path "${slide.baseName}.csv"

    script:
    """
    unetkit import ${slide} slide.zarr
    unetkit tile-predict slide.zarr --model ${model} -o prediction.zarr
    unetkit measure prediction.zarr slide.zarr --csv ${slide.baseName}.csv
    """
}

workflow {
    model = train(file(params.images), file(params.masks))
    objects(channel.fromPath(params.slides), model)
}
